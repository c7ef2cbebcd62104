// SPDX-License-Identifier: Apache-2.0
// The regions of a program one by one: each gets its inputs from the interpreter and must give what
// the interpreter gives, so that an error stays where it is made.
#include "tests/simt/run.h"

#include <stdlib.h>

// Launches first .. first + num - 1 are those of one region.
static bool try_region(const Program *p, const simt_code *code, simt_options o, int first, int num,
                       md_hasher *bits, md_text *why) {
  int region = p->m->launch[first].region;
  char **data = calloc((size_t)p->num_images, sizeof *data);
  MD_ASSERT(data, "out of memory");
  bool ok = true;
  for (int l = first; l < first + num; l++) {
    for (int i = 0; i < p->m->launch[l].num_args; i++) {
      const md_cuda_arg *a = &p->m->launch[l].arg[i];
      int64_t offset;
      int at = program_place(p, a, &offset);
      const Image *image = &p->image[at];
      bool from_outside = a->val != MD_NONE && md_def(p->g, a->val)->region != region;
      bool over = data[at] != NULL;
      md_val state = a->val != MD_NONE ? p->g->value[a->val].storage : MD_NONE;
      if (!over) data[at] = simt_buffer(image->name, image->bytes, from_outside || state);
      // What changes a part of a state leaves the rest.
      if (!over && state) md_tensor_write(md_interp_value(p->ref, state), data[at]);
      // A result may lie over an operand, which then decides what is there first.
      if (from_outside) {
        if (over) simt_set(data[at]);
        if (l == first || !over) md_tensor_write(md_interp_value(p->ref, a->val), data[at]);
      }
    }
  }
  for (int l = first; ok && l < first + num; l++)
    ok = run_launch(p, &p->m->launch[l], code, o, data, why);
  double tolerance = program_tolerance(p, region);
  for (int l = first; ok && l < first + num; l++) {
    for (int i = 0; ok && i < p->m->launch[l].num_args; i++) {
      const md_cuda_arg *a = &p->m->launch[l].arg[i];
      char name[32];
      snprintf(name, sizeof name, "value %u", (unsigned)a->val);
      if (!a->write || a->val == MD_NONE) continue;
      md_hasher_add(bits, data[p->image_of[a->val]], (size_t)p->image[p->image_of[a->val]].bytes);
      ok = program_check_value(p, name, a->val, data[p->image_of[a->val]], tolerance, why);
    }
  }
  simt_free_buffers();
  free(data);
  return ok;
}

static int num_of_region(const md_cuda_module *m, int first) {
  int num = 1;
  while (first + num < m->num_launches && m->launch[first + num].region == m->launch[first].region)
    num++;
  return num;
}

// Is the workspace written by a launch and read by a later one?
static bool is_in_parts(const md_cuda_launch *l, int num) {
  bool is_written = false;
  for (int i = 0; i < num; i++)
    for (int k = 0; k < l[i].num_args; k++) {
      const md_cuda_arg *a = &l[i].arg[k];
      if (a->val != MD_NONE) continue;
      if (is_written && !a->write) return true;
      is_written |= a->write;
    }
  return false;
}

int run_sums_in_parts(const Program *p) {
  int found = 0;
  for (int first = 0, num; first < p->m->num_launches; first += num) {
    num = num_of_region(p->m, first);
    found += is_in_parts(&p->m->launch[first], num);
  }
  return found;
}

Regions run_regions(const Program *p, const simt_code *code, simt_options o, const char *name) {
  Regions r = {0};
  md_hasher *bits = md_hasher_create();
  for (int first = 0, num; first < p->m->num_launches; first += num) {
    num = num_of_region(p->m, first);
    md_text why = {0};
    bool ok = try_region(p, code, o, first, num, bits, &why);
    if (!ok)
      printf("FAILED %s, region %d %s: %s\n", name, p->m->launch[first].region,
             p->g->region[p->m->launch[first].region].name, why.s);
    r.passed += ok;
    r.failed += !ok;
    md_text_free(&why);
  }
  r.bits = md_hasher_end(bits);
  return r;
}
