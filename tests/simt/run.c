// SPDX-License-Identifier: Apache-2.0
// A program on the fiber machine.
#include "tests/simt/run.h"

#include <stdlib.h>
#include <string.h>

static const md_cuda_launch *first_launch(const md_cuda_module *m, const char *kernel) {
  for (int i = 0; i < m->num_launches; i++)
    if (!strcmp(m->launch[i].kernel, kernel)) return &m->launch[i];
  return NULL;
}

char *run_text(const Program *p) {
  md_text t = {0};
  md_put_bytes(&t, p->m->text.s, p->m->text.len);
  for (int k = 0; k < p->m->num_kernels; k++) {
    char name[32];
    snprintf(name, sizeof name, "k%d", k);
    const md_cuda_launch *l = first_launch(p->m, name);
    MD_ASSERT(l, "%s is never launched", name);
    md_put(&t,
           "void %s_call(void *const *arg);\n__attribute__((no_sanitize(\"thread\"))) void "
           "%s_call(void *const *arg) {\n  %s(",
           name, name, name);
    for (int i = 0; i < l->num_args; i++) md_put(&t, "%sarg[%d]", i ? ", " : "", i);
    md_put(&t, ");\n}\n");
  }
  return t.s;
}

simt_code *run_build(const Program *p) {
  char *text = run_text(p);
  simt_code *code = simt_build(text);
  free(text);
  return code;
}

bool run_launch(const Program *p, const md_cuda_launch *l, const simt_code *code, simt_options o,
                char *const *data, md_text *why) {
  void *arg[512];
  char name[48];
  for (int i = 0; i < p->num_images; i++)
    if (data[i]) simt_writable(data[i], false);
  for (int i = 0; i < l->num_args; i++) {
    int64_t offset;
    int at = program_place(p, &l->arg[i], &offset);
    MD_ASSERT(offset + l->arg[i].bytes <= p->image[at].bytes,
              "an argument of %s goes beyond its buffer", l->kernel);
    arg[i] = data[at] + offset;
    if (l->arg[i].write) simt_writable(data[at], true);
  }
  snprintf(name, sizeof name, "%s_call", l->kernel);
  simt_launch launch = {.kernel = simt_entry(code, name),
                        .arg = arg,
                        .blocks = l->blocks,
                        .threads = l->threads,
                        .shared_bytes = l->shared_bytes};
  simt_report r = simt_run(&launch, o);
  if (r.errors) md_put(why, "%s: %s (%d in all)", l->kernel, r.first, r.errors);
  return !r.errors;
}

bool run_program(const Program *p, const simt_code *code, simt_options o, char ***data,
                 md_text *why) {
  char **at = calloc((size_t)p->num_images, sizeof *at);
  MD_ASSERT(at, "out of memory");
  for (int i = 0; i < p->num_images; i++) {
    at[i] = simt_buffer(p->image[i].name, p->image[i].bytes, p->image[i].is_set);
    if (p->image[i].is_set) memcpy(at[i], p->image[i].data, (size_t)p->image[i].bytes);
  }
  *data = at;
  for (int i = 0; i < p->m->num_launches; i++)
    if (!run_launch(p, &p->m->launch[i], code, o, at, why)) return false;
  return true;
}
