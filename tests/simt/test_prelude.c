// SPDX-License-Identifier: Apache-2.0
// Device and host prelude have the same names.
#include "base/file.h"
#include "codegen/cuda/cuda.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAMES = 256 };
typedef struct Names {
  char name[MAX_NAMES][48];
  int num;
} Names;

static bool has(const Names *n, const char *name) {
  for (int i = 0; i < n->num; i++)
    if (!strcmp(n->name[i], name)) return true;
  return false;
}

// Every word md_... or MD_...; those that end in `_` are private.
static void collect(Names *n, const char *s) {
  while (*s) {
    if (!isalpha((unsigned char)*s) && *s != '_') {
      s++;
      continue;
    }
    size_t len = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_");
    char name[48];
    snprintf(name, sizeof name, "%.*s", (int)len, s);
    bool ours = !strncmp(name, "md_", 3) || !strncmp(name, "MD_", 3);
    if (ours && s[len - 1] != '_' && strcmp(name, "md_hash_01") != 0 && !has(n, name) &&
        n->num < MAX_NAMES)
      memcpy(n->name[n->num++], name, sizeof name);
    s += len;
  }
}

int main(void) {
  md_diags *d = md_diags_create();
  size_t len = 0;
  char *host = NULL;
  if (!md_file_read(SIMT_SOURCE "/tests/simt/md_host.h", 1 << 20, E0801, d, &host, &len)) {
    md_diags_print(d, stderr, false);
    return 1;
  }
  static Names a, b;
  collect(&a, md_cuda_prelude((md_cuda_arch){90, 'a'}));
  collect(&b, host);
  int missing = 0;
  for (int i = 0; i < a.num; i++)
    if (!has(&b, a.name[i])) printf("%s is not in the host prelude\n", a.name[i]), missing++;
  for (int i = 0; i < b.num; i++)
    if (!has(&a, b.name[i])) printf("%s is not in the device prelude\n", b.name[i]), missing++;
  printf("%d names, %d missing\n", a.num, missing);
  md_diags_destroy(d);
  free(host);
  return missing || a.num < 30;
}
