// SPDX-License-Identifier: Apache-2.0
// Plug-ins: a shared object is opened, its ABI version is compared, its entry declares a graph. All
// that a plug-in gives lies in the graph's own memory, so it is closed again at once.
#include "api/plugin.h"

#include "api/internal.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// The loader looks for bare names in the system's folders; a file of the user's is meant.
static void *open_file(const char *path, md_diags *d) {
  char *given = NULL;
  if (!strchr(path, '/') && asprintf(&given, "./%s", path) < 0) md_out_of_memory(strlen(path) + 3);
  void *library = dlopen(given ? given : path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char *words = dlerror(), *file = given ? given : path;
    // The loader repeats the name, which is the place already.
    if (strncmp(words, file, strlen(file)) == 0)
      words += strlen(file) + strspn(words + strlen(file), ": ");
    char clean[400];
    md_error(d, E0403, MD_IN_FILE(path), "the plug-in cannot be loaded: %s",
             md_clean(words, clean, sizeof clean));
    if (strstr(words, "undefined symbol"))
      md_hint(d, "modistc gives plug-ins the functions of modist/modist.h; others are the "
                 "plug-in's to link");
    else
      md_hint(
          d,
          "a plug-in is made by: cc -shared -fPIC $(pkg-config --cflags modist) net.c -o net.so");
  }
  free(given);
  return library;
}

static void *symbol(void *library, const char *path, const char *name, const char *declaration,
                    md_diags *d) {
  void *at = dlsym(library, name);
  if (at) return at;
  md_error(d, E0404, MD_IN_FILE(path), "not a plug-in: it exports no '%s'", name);
  md_hint(d, "it declares: %s", declaration);
  return NULL;
}

static modist_plugin_entry checked_entry(void *library, const char *path, md_diags *d) {
  const int *abi = symbol(library, path, MODIST_PLUGIN_ABI_SYMBOL,
                          "const int " MODIST_PLUGIN_ABI_SYMBOL " = MODIST_ABI_VERSION;", d);
  if (!abi) return NULL;
  if (*abi != MODIST_ABI_VERSION) {
    md_error(d, E0405, MD_IN_FILE(path), "the plug-in was made for ABI version %d, but this is %d",
             *abi, MODIST_ABI_VERSION);
    md_hint(d, "compile it again with the headers of modist %s", MODIST_VERSION);
    return NULL;
  }
  void *at = symbol(library, path, MODIST_PLUGIN_ENTRY_SYMBOL,
                    "void " MODIST_PLUGIN_ENTRY_SYMBOL "(modist_graph *g);", d);
  // The one way from an object pointer to a function pointer that ISO C leaves.
  modist_plugin_entry entry = NULL;
  if (at) memcpy(&entry, &at, sizeof entry);
  return entry;
}

// "nets/wide_net.so" -> "wide_net"; what is no name becomes `_`.
static void graph_name(const char *path, char name[MD_MAX_NAME + 1]) {
  const char *slash = strrchr(path, '/');
  snprintf(name, MD_MAX_NAME + 1, "%s", slash ? slash + 1 : path);
  char *suffix = strstr(name, ".so");
  if (suffix && suffix != name) *suffix = 0;
  for (char *s = name; *s; s++) {
    bool letter = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z');
    bool later = s > name && ((*s >= '0' && *s <= '9') || *s == '-' || *s == '.');
    if (!letter && !later) *s = '_';
  }
}

// What was declared, or NULL with the builder's own errors handed on.
static md_graph *declare(modist_plugin_entry entry, const char *path, md_diags *d) {
  char name[MD_MAX_NAME + 1];
  graph_name(path, name);
  modist_graph *h = md_api_wrap(md_graph_create(name), md_diags_create());
  entry(h);
  if (modist_graph_status(h) != MD_OK) {
    md_error(d, E0406, MD_IN_FILE(path), "the plug-in declares no valid graph");
    md_note(d, MD_NOWHERE, "%s", modist_graph_error(h));
  } else if (!h->b.g->num_results && !h->b.g->num_updates) {
    md_error(d, E0406, MD_IN_FILE(path), "the plug-in declares a graph without a result");
    md_hint(d, "modist_return(g, \"y\", y) names one");
    h->b.failed = true;
  }
  return md_api_unwrap(h);
}

md_graph *md_plugin_graph(const char *path, md_diags *d) {
  void *library = open_file(path, d);
  if (!library) return NULL;
  modist_plugin_entry entry = checked_entry(library, path, d);
  md_graph *g = entry ? declare(entry, path, d) : NULL;
  dlclose(library);
  return g;
}
