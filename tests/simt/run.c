// SPDX-License-Identifier: Apache-2.0
// A program on the fiber machine.
#include "tests/simt/run.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_MAPS = 16 };  // of a launch

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
    for (int i = 0; i < l->num_counts; i++)
      md_put(&t, "%s(md_i64)arg[%d]", i + l->num_args ? ", " : "", l->num_args + i);
    md_put(&t, ");\n}\n");
  }
  return t.s;
}

bool run_build_all(Program *const *p, int num) {
  simt_kernel *k = NULL;
  int num_kernels = 0, cap = 0;
  for (int i = 0; i < num; i++)
    for (int j = 0; p[i] && j < p[i]->m->num_kernels; j++) {
      const md_cuda_kernel *from = &p[i]->m->kernel[j];
      MD_PUSH(k, num_kernels, cap,
              ((simt_kernel){from->symbol, from->text, from->num_params, from->num_counts}));
    }
  bool ok = simt_know(k, num_kernels);
  free(k);
  return ok;
}

bool run_build(const Program *p) {
  Program *one = (Program *)(uintptr_t)p;
  return run_build_all(&one, 1);
}

bool run_is_known(const Program *p) {
  static md_digest *seen;
  static int num, cap;
  md_text all = {0};
  md_graph_print(p->g, &all);
  md_put(&all, "%s", p->m->text.s ? p->m->text.s : "");
  for (int i = 0; i < p->m->num_launches; i++) {
    const md_cuda_launch *l = &p->m->launch[i];
    md_put(&all, "%s %lld %d %d\n", l->kernel, (long long)l->blocks, l->threads, l->shared_bytes);
    for (int k = 0; k < l->num_counts; k++) md_put(&all, "%lld ", (long long)l->count[k]);
  }
  for (int i = 0; i < p->num_images; i++)
    if (p->image[i].is_set) md_put_bytes(&all, p->image[i].data, (size_t)p->image[i].bytes);
  md_digest d = md_digest_of(all.s, all.len);
  md_text_free(&all);
  for (int i = 0; i < num; i++)
    if (seen[i].lo == d.lo && seen[i].hi == d.hi) return true;
  MD_PUSH(seen, num, cap, d);
  return false;
}

void run_print(const Program *p) {
  for (int i = 0; i < p->m->num_kernels; i++) printf("// k%d\n%s", i, p->m->kernel[i].text);
}

static simt_entry_point *entry_of(const Program *p, const md_cuda_launch *l,
                                  const simt_code *code) {
  char name[48];
  snprintf(name, sizeof name, "%s_call", l->kernel);
  return code ? simt_entry(code, name) : simt_known(p->m->kernel[l->number].symbol);
}

static simt_tmap tensor_map(const md_windows *w, void *base) {
  int dim[5], first[3], last[3], step[3];
  for (int i = 0; i < 5; i++) dim[i] = (int)w->dim[i];
  for (int i = 0; i < 3; i++) {
    first[i] = (int)w->first[i];
    last[i] = (int)w->last[i];
    step[i] = (int)w->step[i];
  }
  return simt_tmap_im2col(base, dim, first, last, step, (int)w->channels, (int)w->pixels, true);
}

bool run_launch(const Program *p, const md_cuda_launch *l, const simt_code *code, simt_options o,
                char *const *data, md_text *why) {
  void *arg[512];
  simt_tmap map[MAX_MAPS];
  int num_maps = 0;
  for (int i = 0; i < p->num_images; i++)
    if (data[i]) simt_writable(data[i], false);
  char *workspace = data[p->image_of[MD_NONE]];
  if (workspace) simt_close(workspace);
  for (int i = 0; i < l->num_args; i++) {
    int64_t offset;
    int at = program_place(p, &l->arg[i], &offset);
    MD_ASSERT(offset + l->arg[i].bytes <= p->image[at].bytes,
              "an argument of %s goes beyond its buffer", l->kernel);
    arg[i] = data[at] + offset;
    if (l->arg[i].windows) {
      MD_ASSERT(num_maps < MAX_MAPS, "%s has too many tensor maps", l->kernel);
      map[num_maps] = tensor_map(l->arg[i].windows, arg[i]);
      map[num_maps].is_in_memory = true;
      arg[i] = &map[num_maps++];
    }
    if (l->arg[i].val == MD_NONE) simt_open(workspace, offset, l->arg[i].bytes);
    if (l->arg[i].write) simt_writable(data[at], true);
  }
  for (int i = 0; i < l->num_counts; i++) arg[l->num_args + i] = (void *)(intptr_t)l->count[i];
  simt_launch launch = {.kernel = entry_of(p, l, code),
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
