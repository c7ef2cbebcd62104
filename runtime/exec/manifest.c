// SPDX-License-Identifier: Apache-2.0
// manifest.json: the program but its code, a row a line, so that `unzip -p x.mdx manifest.json` can
// be read. Phases and arguments stand inside their launch. Readers pass over keys that they do not
// know: within a format version keys are only added.
#include "runtime/exec/exec.h"

#include "base/init.h"

static void begin_row(md_json *j) {
  md_json_begin(j, '{');
  j->compact = true;
}

static void end_row(md_json *j) {
  md_json_end(j, '}');
  j->compact = false;
}

static void put_type(md_json *j, md_dtype t, int rank, const int64_t *dim) {
  md_json_put_str(j, "type", md_dtype_name(t));
  md_json_key(j, "shape");
  md_json_begin(j, '[');
  for (int i = 0; i < rank; i++) md_json_int(j, dim[i]);
  md_json_end(j, ']');
}

static void put_spec(md_json *j, const md_spec *s) {
  md_json_put_str(j, "name", s->name);
  put_type(j, s->dtype, s->rank, s->dim);
}

static void put_numbers(md_json *j, const char *key, const int64_t *x, int num) {
  md_json_key(j, key);
  md_json_begin(j, '[');
  for (int i = 0; i < num; i++) md_json_int(j, x[i]);
  md_json_end(j, ']');
}

static void put_windows(md_json *j, const md_windows *w) {
  md_json_key(j, "windows");
  md_json_begin(j, '{');
  put_numbers(j, "of", w->dim, MD_COUNT(w->dim));
  put_numbers(j, "first", w->first, 3);
  put_numbers(j, "last", w->last, 3);
  put_numbers(j, "step", w->step, 3);
  md_json_put_int(j, "channels", w->channels);
  md_json_put_int(j, "pixels", w->pixels);
  md_json_end(j, '}');
}

static void put_arg(md_json *j, const md_arg *a) {
  md_json_put_str(j, "in", md_space_names[a->space]);
  if (a->space != MD_IN_ARENA && a->space != MD_IN_WORKSPACE) md_json_put_int(j, "index", a->index);
  md_json_put_int(j, "offset", a->offset);
  md_json_put_int(j, "bytes", a->bytes);
  if (a->write) {
    md_json_key(j, "write");
    md_json_bool(j, true);
  }
  if (a->may_be_left_out) {
    md_json_key(j, "may_be_left_out");
    md_json_bool(j, true);
  }
  if (a->name) md_json_put_str(j, "value", a->name);
  if (a->windows) put_windows(j, a->windows);
  if (a->dtype == MD_NO_DTYPE) return;
  put_type(j, a->dtype, a->rank, a->dim);
  if (a->block) md_json_put_int(j, "block", a->block);
}

static void put_state(md_json *j, const md_spec *s) {
  begin_row(j);
  put_spec(j, s);
  md_json_put_str(j, "init", md_init_names[s->init]);
  if (s->a != 0) md_json_put_float(j, "a", s->a);
  if (s->b != 0) md_json_put_float(j, "b", s->b);
  if (s->init == MD_INIT_copy) md_json_put_str(j, "from", s->from);
  end_row(j);
}

static void put_launch(md_json *j, const md_program *p, const md_launch *l) {
  md_json_begin(j, '{');
  md_json_put_str(j, "name", l->name);
  if (l->region) md_json_put_int(j, "region", l->region);
  md_json_put_float(j, "flops", l->flops);
  md_json_put_float(j, "bytes", l->bytes);
  md_json_key(j, "phases");
  md_json_begin(j, '[');
  for (int i = l->first_phase; i < l->first_phase + l->num_phases; i++) {
    const md_phase *f = &p->phase[i];
    begin_row(j);
    md_json_put_str(j, "symbol", f->symbol);
    md_json_put_int(j, "items", f->items);
    if (f->scratch_bytes) md_json_put_int(j, "scratch", f->scratch_bytes);
    if (f->threads) md_json_put_int(j, "threads", f->threads);
    if (f->shared_bytes) md_json_put_int(j, "shared", f->shared_bytes);
    end_row(j);
  }
  md_json_end(j, ']');
  md_json_key(j, "args");
  md_json_begin(j, '[');
  for (int i = l->first_arg; i < l->first_arg + l->num_args; i++) {
    begin_row(j);
    put_arg(j, &p->arg[i]);
    end_row(j);
  }
  md_json_end(j, ']');
  if (l->num_counts) put_numbers(j, "counts", p->count + l->first_count, l->num_counts);
  md_json_end(j, '}');
}

static void begin_rows(md_json *j, const char *key) {
  md_json_key(j, key);
  md_json_begin(j, '[');
}

static void put_trials(md_json *j, const md_program *p, const md_gpu_variant *v) {
  begin_rows(j, "trials");
  for (int i = v->first_trial; i < v->first_trial + v->num_trials; i++) {
    const md_gpu_trial *t = &p->trial[i];
    begin_row(j);
    md_json_put_str(j, "key", t->key);
    md_json_put_str(j, "way", t->way);
    md_json_put_str(j, "own", t->own);
    md_json_put_int(j, "replaced", t->replaced);
    md_json_put_int(j, "num_replaced", t->num_replaced);
    md_json_put_int(j, "num_launches", t->num_launches);
    end_row(j);
  }
  md_json_end(j, ']');
}

// A target of a CUDA program: which launches are its own, and where the code of its kernels is.
static void put_variant(md_json *j, const md_program *p, const md_gpu_variant *v) {
  md_json_begin(j, '{');
  md_json_put_str(j, "target", v->target);
  md_json_put_int(j, "first_launch", v->first_launch);
  md_json_put_int(j, "num_launches", v->num_launches);
  md_json_put_int(j, "workspace_bytes", v->workspace_bytes);
  begin_rows(j, "kernels");
  for (int i = v->first_kernel; i < v->first_kernel + v->num_kernels; i++) {
    begin_row(j);
    md_json_put_str(j, "symbol", p->kernel[i].symbol);
    md_json_put_str(j, "member", p->kernel[i].member);
    end_row(j);
  }
  md_json_end(j, ']');
  if (v->num_trials) put_trials(j, p, v);
  if (v->predicted_for) {
    md_json_put_str(j, "predicted_for", v->predicted_for);
    md_json_key(j, "predicted_us");
    md_json_begin(j, '[');
    j->compact = true;
    for (int i = 0; i < v->num_launches + v->num_tried; i++) md_json_float(j, v->predicted_us[i]);
    md_json_end(j, ']');
    j->compact = false;
  }
  md_json_end(j, '}');
}

static void put_operand(md_json *j, const char *key, const md_arg *a) {
  md_json_key(j, key);
  md_json_begin(j, '{');
  put_arg(j, a);
  md_json_end(j, '}');
}

static void put_fused(md_json *j, const md_conv_group *g) {
  md_json_key(j, "fused");
  md_json_begin(j, '{');
  md_json_key(j, "relu_before");
  md_json_bool(j, g->fused.relu_before);
  md_json_key(j, "relu_behind");
  md_json_bool(j, g->fused.relu_behind);
  md_json_put_float(j, "eps", g->fused.eps);
  md_json_put_float(j, "add_eps", g->fused.add_eps);
  for (int i = 0; i < MD_NUM_CONV_PARTS; i++)
    if (g->part[i].rank) put_operand(j, md_conv_part_names[i], &g->part[i]);
  md_json_end(j, '}');
}

static void put_conv(md_json *j, const md_conv_group *g) {
  begin_row(j);
  md_json_put_int(j, "first_launch", g->first_launch);
  md_json_put_int(j, "num_launches", g->num_launches);
  md_json_put_str(j, "kind", md_conv_kind_names[g->kind]);
  put_numbers(j, "stride", g->stride, 3);
  put_numbers(j, "pad", g->pad, 3);
  put_numbers(j, "dilation", g->dilation, 3);
  put_operand(j, "x", &g->x);
  put_operand(j, "w", &g->w);
  put_operand(j, "y", &g->y);
  if (md_conv_is_fused(g)) put_fused(j, g);
  end_row(j);
}

void md_manifest_write(const md_program *p, const md_member *members, int num_members,
                       md_text *to) {
  char digest[33];
  md_json w = {.compact = false}, *j = &w;
  md_json_begin(j, '{');
  md_json_put_str(j, "format", MD_ARTEFACT_FORMAT);
  md_json_put_int(j, "abi", MD_ABI_VERSION);
  md_json_put_str(j, "producer", "modist " MODIST_VERSION);
  md_json_put_str(j, "name", p->name);
  md_json_put_str(j, "target", p->target);
  md_json_put_str(j, "graph", md_digest_text(p->graph, digest));
  md_json_put_int(j, "arena_bytes", p->arena_bytes);
  md_json_put_int(j, "workspace_bytes", p->workspace_bytes);
  begin_rows(j, "members");
  for (int i = 0; i < num_members; i++) {
    begin_row(j);
    md_json_put_str(j, "name", members[i].name);
    md_json_put_int(j, "bytes", (int64_t)members[i].bytes);
    md_json_put_str(j, "xxh3",
                    md_digest_text(md_digest_of(members[i].data, members[i].bytes), digest));
    if (members[i].shared) {
      md_json_key(j, "shared");
      md_json_bool(j, true);
    }
    end_row(j);
  }
  md_json_end(j, ']');
  if (p->num_variants) {
    begin_rows(j, "targets");
    for (int i = 0; i < p->num_variants; i++) put_variant(j, p, &p->variant[i]);
    md_json_end(j, ']');
  }
  begin_rows(j, "inputs");
  for (int i = 0; i < p->num_inputs; i++) {
    begin_row(j);
    put_spec(j, &p->input[i]);
    end_row(j);
  }
  md_json_end(j, ']');
  begin_rows(j, "states");
  for (int i = 0; i < p->num_states; i++) put_state(j, &p->state[i]);
  md_json_end(j, ']');
  begin_rows(j, "results");
  for (int i = 0; i < p->num_results; i++) {
    begin_row(j);
    put_spec(j, &p->result[i]);
    md_json_key(j, "at");
    md_json_begin(j, '{');
    put_arg(j, &p->result_at[i]);
    md_json_end(j, '}');
    end_row(j);
  }
  md_json_end(j, ']');
  begin_rows(j, "launches");
  for (int i = 0; i < p->num_launches; i++) put_launch(j, p, &p->launch[i]);
  md_json_end(j, ']');
  if (p->num_convs) {
    begin_rows(j, "convolutions");
    for (int i = 0; i < p->num_convs; i++) put_conv(j, &p->conv[i]);
    md_json_end(j, ']');
  }
  begin_rows(j, "copies");
  for (int i = 0; i < p->num_copies; i++) {
    begin_row(j);
    md_json_put_int(j, "state", p->copy[i].state);
    md_json_key(j, "from");
    md_json_begin(j, '{');
    put_arg(j, &p->copy[i].src);
    md_json_end(j, '}');
    end_row(j);
  }
  md_json_end(j, ']');
  md_json_end(j, '}');
  md_put_bytes(&j->out, "\n", 1);
  *to = j->out;
}
