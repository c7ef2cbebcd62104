// SPDX-License-Identifier: Apache-2.0
// The structure of a region: all that its code depends on, and nothing else. Values are numbered by
// their place in the region, so regions of different layers come out equal.
#include "codegen/cpu/assemble.h"

static void put_type(md_text *t, const md_type *type) {
  md_put(t, "%d.c%d[", (int)type->dtype, type->block);
  for (int i = 0; i < type->shape.rank; i++) md_put(t, "%lld,", (long long)type->shape.dim[i]);
  md_put(t, "]");
}

static void put_operand(md_text *t, const md_region_view *r, md_val v) {
  if (v == MD_NONE) {
    md_put(t, " -");
    return;
  }
  const md_node *n = md_def(r->g, v);
  if (n->op == MD_OP_constant) {
    md_put(t, " c%a:", n->attr.value.value);
    put_type(t, md_type_in(r->g, v));
    return;
  }
  for (int i = 0; i < r->num_inputs; i++) {
    if (r->input[i] == v) md_put(t, " i%d", i);
  }
  if (md_inner(r, v)) md_put(t, " n%d.%d", n->index - r->node[0]->index, (int)(v - n->out));
}

static void put_memory(md_text *t, const md_region_view *r, md_val out) {
  for (int i = 0; i < r->num_inputs; i++) {
    if (!md_shares_memory(r->g, out, r->input[i])) continue;
    md_put(t, " over i%d%s", i, md_same_memory(r->g, out, r->input[i]) ? "" : " shifted");
  }
}

md_digest md_structure_digest(const md_region_view *r, bool is_snapshot, const char *options) {
  md_text t = {0};
  md_put(&t, "%s%s\n", options, is_snapshot ? " snapshot" : "");
  for (int i = 0; i < r->num_inputs; i++) {
    put_type(&t, md_type_in(r->g, r->input[i]));
    md_put(&t, "\n");
  }
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    md_put(&t, "%d", (int)n->op);
    for (int w = 0; w < MD_ATTR_WORDS; w++)
      md_put(&t, ",%llx", (unsigned long long)n->attr.word[w]);
    for (int k = 0; k < n->num_in; k++) put_operand(&t, r, n->in[k]);
    for (int k = 0; k < n->num_out; k++) {
      md_put(&t, " -> ");
      put_type(&t, md_type_in(r->g, n->out + (md_val)k));
    }
    md_put(&t, "\n");
  }
  for (int i = 0; i < r->num_outputs; i++) {
    md_put(&t, "out");
    put_operand(&t, r, r->output[i]);
    put_memory(&t, r, r->output[i]);
    md_put(&t, "\n");
  }
  if (is_snapshot && r->num_inputs == 0) put_operand(&t, r, r->output[0]);
  md_digest d = md_digest_of(t.s, t.len);
  md_text_free(&t);
  return d;
}
