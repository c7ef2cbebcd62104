// SPDX-License-Identifier: Apache-2.0
// What a user names on the command line becomes a graph.
#include "modistc/modistc.h"

#include "api/plugin.h"
#include "base/file.h"
#include "runtime/train/train.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_GRAPH_TEXT = 64 << 20 };

static bool has_suffix(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n > m && strcmp(s + n - m, end) == 0;
}

static md_graph *from_text(md_cli *cli, const char *path) {
  char *text;
  size_t len;
  if (!md_file_read(path, MAX_GRAPH_TEXT, E0402, cli->diags, &text, &len)) return NULL;
  md_graph *g = md_parse_graph(path, text, len, cli->diags);
  free(text);
  return g;
}

// The end of a pipe: what `compile --emit=graph` wrote into it.
static md_graph *from_stdin(md_cli *cli) {
  static const char name[] = "standard input";
  char part[4096];
  md_text text = {0};
  for (size_t n; text.len <= MAX_GRAPH_TEXT && (n = fread(part, 1, sizeof part, stdin)) > 0;)
    md_put_bytes(&text, part, n);
  md_graph *g = NULL;
  if (ferror(stdin)) md_error(cli->diags, E0402, MD_IN_FILE(name), "cannot be read");
  else if (text.len > MAX_GRAPH_TEXT)
    md_error(cli->diags, E0402, MD_IN_FILE(name), "is longer than %d MiB", MAX_GRAPH_TEXT >> 20);
  else g = md_parse_graph(name, text.s ? text.s : "", text.len, cli->diags);
  md_text_free(&text);
  return g;
}

// The argument names the model; settings that are made for another one do not silently replace it.
static bool is_own_model(const md_config *c, const md_model *m, md_diags *d) {
  const char *other = md_config_text(c, "model.name");
  const md_model *theirs = md_config_given(c, "model.name") ? md_model_from(other) : NULL;
  if (!theirs || theirs == m) return true;  // an unknown one is reported as such
  md_error(d, E0207, md_config_place(c, "model.name"),
           "the settings are those of %s, but the command line names %s", theirs->name, m->name);
  md_hint(d, "name %s, or add model.name=%s to take the other settings for it", theirs->name,
          m->name);
  return false;
}

static md_graph *from_model(md_cli *cli, const char *name) {
  const md_model *m = md_model_from(name);
  if (!m) {
    char clean[200];
    md_error(cli->diags, E0402, MD_NOWHERE,
             "'%s' is neither a model nor a graph text (.mdg) nor a plug-in (.so)",
             md_clean(name, clean, sizeof clean));
    md_model_hint(name, cli->diags);
    return NULL;
  }
  md_step s = md_step_defaults();
  m->fill(&s);
  md_config *config =
      md_config_load(md_cli_get(cli, "config"), cli->arg + 1, cli->num_args - 1, cli->diags);
  if (!config) return NULL;
  bool ok = is_own_model(config, m, cli->diags) && md_config_step(config, &s, cli->diags);
  md_config_destroy(config);
  return ok ? md_step_graph(&s, cli->diags) : NULL;
}

// Only models have settings; ignoring what a user asks for would be a lie.
bool md_source_takes_no_settings(md_cli *cli, const char *what) {
  if (cli->num_args <= 1 && !md_cli_get(cli, "config")) return true;
  char clean[200];
  md_error(cli->diags, E0401, MD_NOWHERE, "settings are for models; '%s' has none",
           md_clean(what, clean, sizeof clean));
  md_hint(cli->diags, "'modistc models' lists the models");
  return false;
}

md_graph *md_source_graph(md_cli *cli, const char *what) {
  bool is_stdin = strcmp(what, "-") == 0, is_text = has_suffix(what, ".mdg");
  if (!is_stdin && !is_text && !has_suffix(what, ".so")) return from_model(cli, what);
  if (!md_source_takes_no_settings(cli, what)) return NULL;
  if (is_stdin) return from_stdin(cli);
  return is_text ? from_text(cli, what) : md_plugin_graph(what, cli->diags);
}

bool md_source_passes(md_cli *cli, md_pass_options *o) {
  static const char *const precisions[] = {"fp32", "bf16", NULL};
  *o = md_pass_defaults();
  o->passes = md_cli_get(cli, "passes");
  o->disable = md_cli_get(cli, "disable-pass");
  o->print_after = md_cli_get(cli, "print-ir-after");
  o->print_changed = md_cli_has(cli, "print-changed");
  o->dump_dir = md_cli_get(cli, "dump-dir");
  o->time = md_cli_has(cli, "time-passes");
  o->verify_each = o->verify_each || md_cli_has(cli, "verify-each");
  int64_t level = o->level;
  if (!md_cli_int(cli, "opt-level", 0, 2, &level)) return false;
  if (!md_cli_int(cli, "max-rewrites", 0, INT64_MAX, &o->max_rewrites)) return false;
  int precision = md_cli_choice(cli, "precision", precisions, 0);
  if (precision < 0) return false;
  o->level = (int)level;
  o->precision = precision == 1 ? MD_BF16 : MD_F32;
  return true;
}

bool md_source_engine(md_cli *cli, md_engine_options *o) {
  int engine = md_cli_choice(cli, "engine", md_conv_engine_names, MD_ENGINE_MODIST);
  if (engine < 0) return false;
  o->engine = (md_conv_engine)engine;
  o->deterministic = md_cli_has(cli, "deterministic");
  return md_conv_engine_suits(o->engine, o->deterministic, cli->diags);
}

bool md_source_backend(md_cli *cli, md_engine_options *o) {
  static const char *const backends[] = {"cpu", "interp", NULL};
  int backend = md_cli_choice(cli, "backend", backends, 0), index = -1;
  o->device = md_cli_get(cli, "device");
  if (backend < 0 || (o->device && !md_device_parse(o->device, &index, cli->diags))) return false;
  o->backend = backend == 1 ? MD_BACKEND_INTERP : index < 0 ? MD_BACKEND_CPU : MD_BACKEND_CUDA;
  return true;
}
