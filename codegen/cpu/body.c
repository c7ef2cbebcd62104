// SPDX-License-Identifier: Apache-2.0
// What a value is at a place: loads of what comes from outside, formulas of pointwise nodes, index
// maps of views. A value of the region is never read from memory here, so fusion costs nothing.
#include "codegen/cpu/place.h"

#include "base/round.h"

#include <math.h>
#include <string.h>

struct md_memo {
  md_val val;
  md_spot at;
  md_ir ir;
};

// --- formulas

// A step of a formula: a number known now, or code.
typedef struct step {
  bool known;
  double number;
  md_ir ir;
} step;

typedef struct formula {
  md_emit *e;
  LLVMTypeRef type;  // compute type of the results
  int lanes;
  const md_node *node;
  md_ir *arg;
  md_ir index;  // row-major, for random
} formula;

static bool is_int(LLVMTypeRef t) { return LLVMGetTypeKind(t) == LLVMIntegerTypeKind; }

static md_ir as(const formula *f, const step *s, LLVMTypeRef type) {
  return s->known ? md_const(f->e, type, f->lanes, s->number) : md_convert(f->e, s->ir, type);
}

static md_ir truth(const formula *f, const step *s) {
  if (s->known) return md_const(f->e, f->e->i1, f->lanes, s->number != 0);
  LLVMTypeRef t = md_scalar_type(s->ir);
  if (t == f->e->i1) return s->ir;
  md_ir zero = md_zero(LLVMTypeOf(s->ir));
  return is_int(t) ? LLVMBuildICmp(f->e->b, LLVMIntNE, s->ir, zero, "")
                   : LLVMBuildFCmp(f->e->b, LLVMRealUNE, s->ir, zero, "");
}

// The type in which a and b can be compared without loss: integers as i64, so that large ids
// differ.
static LLVMTypeRef common(const formula *f, const step *a, const step *b) {
  md_emit *e = f->e;
  const step *both[] = {a, b};
  LLVMTypeRef t = e->i64;
  for (int i = 0; i < 2; i++) {
    if (both[i]->known) {
      bool whole = floor(both[i]->number) == both[i]->number && fabs(both[i]->number) < 0x1p63;
      if (!whole && is_int(t)) t = e->f64;
      continue;
    }
    LLVMTypeRef own = md_scalar_type(both[i]->ir);
    if (is_int(own)) continue;
    t = own == e->f64 || t == e->f64 ? own : e->f32;
  }
  return t;
}

static md_ir compare(const formula *f, md_expr_kind kind, const step *a, const step *b) {
  LLVMTypeRef t = common(f, a, b);
  md_ir x = as(f, a, t), y = as(f, b, t);
  LLVMIntPredicate ints = kind == MD_EX_LT   ? LLVMIntSLT
                          : kind == MD_EX_LE ? LLVMIntSLE
                          : kind == MD_EX_EQ ? LLVMIntEQ
                                             : LLVMIntNE;
  LLVMRealPredicate reals = kind == MD_EX_LT   ? LLVMRealOLT
                            : kind == MD_EX_LE ? LLVMRealOLE
                            : kind == MD_EX_EQ ? LLVMRealOEQ
                                               : LLVMRealUNE;
  return is_int(t) ? LLVMBuildICmp(f->e->b, ints, x, y, "")
                   : LLVMBuildFCmp(f->e->b, reals, x, y, "");
}

static md_ir integer(const formula *f, md_expr_kind kind, md_ir a, md_ir b) {
  LLVMBuilderRef to = f->e->b;
  switch (kind) {
  case MD_EX_ADD: return LLVMBuildAdd(to, a, b, "");
  case MD_EX_SUB: return LLVMBuildSub(to, a, b, "");
  case MD_EX_MUL: return LLVMBuildMul(to, a, b, "");
  case MD_EX_NEG: return LLVMBuildNeg(to, a, "");
  case MD_EX_ABS: return md_imax(f->e, a, LLVMBuildNeg(to, a, ""));
  case MD_EX_MIN: return md_imin(f->e, a, b);
  case MD_EX_MAX: return md_imax(f->e, a, b);
  default: MD_ASSERT(false, "%s has no integer form", md_ops[f->node->op].name);
  }
}

static md_ir real(const formula *f, md_expr_kind kind, md_ir a, md_ir b) {
  md_emit *e = f->e;
  switch (kind) {
  case MD_EX_ADD: return md_fadd(e, a, b);
  case MD_EX_SUB: return md_fsub(e, a, b);
  case MD_EX_MUL: return md_fmul(e, a, b);
  case MD_EX_DIV: return md_fdiv(e, a, b);
  case MD_EX_NEG: return md_fneg(e, a);
  case MD_EX_MIN: return md_fmin(e, a, b);
  case MD_EX_MAX: return md_fmax(e, a, b);
  case MD_EX_EXP: return md_exp_of(e, a);
  case MD_EX_LOG: return md_log_of(e, a);
  case MD_EX_LOG1P: return md_log1p_of(e, a);
  case MD_EX_SQRT: return md_sqrt_of(e, a);
  case MD_EX_RSQRT: return md_fdiv(e, md_const_like(e, a, 1), md_sqrt_of(e, a));
  case MD_EX_ABS: return md_intrinsic(e, "llvm.fabs", &a, 1, LLVMTypeOf(a));
  case MD_EX_TANH: return md_tanh_of(e, a);
  case MD_EX_FLOOR: return md_floor_of(e, a);
  default: MD_ASSERT(false, "expression step %d has no code", (int)kind);
  }
}

static step apply(const formula *f, const md_expr_node *x, const step *s) {
  step r = {0};
  const step *a = &s[x->a], *b = &s[x->b], *c = &s[x->c];
  switch (x->kind) {
  case MD_EX_CONST: return (step){.known = true, .number = x->value};
  case MD_EX_ATTR: return (step){.known = true, .number = md_attr_value(&f->node->attr, x)};
  case MD_EX_ARG: return (step){.ir = f->arg[x->a]};
  case MD_EX_LT:
  case MD_EX_LE:
  case MD_EX_EQ:
  case MD_EX_NE: r.ir = compare(f, x->kind, a, b); return r;
  case MD_EX_AND: r.ir = LLVMBuildAnd(f->e->b, truth(f, a), truth(f, b), ""); return r;
  case MD_EX_OR: r.ir = LLVMBuildOr(f->e->b, truth(f, a), truth(f, b), ""); return r;
  case MD_EX_SELECT:
    if (a->known) return a->number != 0 ? *b : *c;
    r.ir = md_select(f->e, truth(f, a), as(f, b, f->type), as(f, c, f->type));
    return r;
  case MD_EX_RANDOM: r.ir = md_random_of(f->e, as(f, a, f->e->i64), f->index, f->type); return r;
  default: break;
  }
  bool two = x->kind <= MD_EX_DIV || x->kind == MD_EX_MIN || x->kind == MD_EX_MAX;
  if (a->known && (!two || b->known)) {
    r.known = true;
    r.number = md_expr_apply(x->kind, a->number, two ? b->number : 0, 0);
    return r;
  }
  md_ir va = as(f, a, f->type), vb = two ? as(f, b, f->type) : NULL;
  r.ir = is_int(f->type) ? integer(f, x->kind, va, vb) : real(f, x->kind, va, vb);
  return r;
}

// Result v as its element type holds it. Compute types are wider than u8, bool and bf16; what only
// goes to memory is rounded to bf16 there.
static md_ir settle(const formula *f, const md_region_view *r, md_val v, const step *s) {
  md_emit *e = f->e;
  md_dtype d = md_type_in(r->g, v)->dtype;
  LLVMTypeRef type = md_compute_type(e, d);
  if (s->known) return md_const(e, type, f->lanes, md_rounded(d, s->number));
  if (d == MD_BOOL) return md_convert(e, truth(f, s), type);
  md_ir x = as(f, s, type);
  if (d == MD_U8) {
    md_ir most = md_const_like(e, x, UINT8_MAX);
    return is_int(md_scalar_type(s->ir)) ? LLVMBuildAnd(e->b, x, most, "")
                                         : md_imin(e, md_imax(e, x, md_zero(LLVMTypeOf(x))), most);
  }
  return d == MD_BF16 && md_read_inside(r, v) ? md_round_bf16(e, x) : x;
}

// --- values

static md_ir value_at(md_body *b, md_val v, const md_spot *at);

static void remember(md_body *b, md_val v, const md_spot *at, md_ir ir) {
  if (b->num_memo == b->cap_memo) {
    int cap = MD_MAX(32, 2 * b->cap_memo);
    struct md_memo *memo = MD_NEW_ARRAY(b->k->arena, struct md_memo, cap);
    if (b->num_memo) memcpy(memo, b->memo, sizeof *memo * (size_t)b->num_memo);
    b->memo = memo;
    b->cap_memo = cap;
  }
  b->memo[b->num_memo++] = (struct md_memo){v, *at, ir};
}

static void name_result(md_body *b, const md_node *n, md_ir ir) {
  if (LLVMIsConstant(ir) || LLVMIsAArgument(ir)) return;
  char name[24];
  int i = 0;
  while (b->k->r->node[i] != n) i++;
  snprintf(name, sizeof name, "t%d", i);
  LLVMSetValueName2(ir, name, strlen(name));
}

// All results of a pointwise node; they go to the memo.
static void make_pointwise(md_body *b, const md_node *n, const md_spot *at) {
  md_emit *e = &b->k->e;
  const md_graph *g = b->k->r->g;
  md_dtype dtype = md_type_in(g, n->out)->dtype;
  formula f = {.e = e, .type = md_compute_type(e, dtype), .lanes = at->lanes, .node = n};
  md_ir arg[MD_ROW_IN] = {0};
  for (int k = 0; k < n->num_in; k++) {
    md_spot in = md_spot_operand(e, g, n, k, at);
    arg[k] = value_at(b, n->in[k], &in);
  }
  f.arg = arg;
  const md_expr *x = md_op_expr(&md_ops[n->op]);
  for (int i = 0; i < x->num; i++) {
    if (x->node[i].kind != MD_EX_RANDOM || f.index) continue;
    md_index flat = md_flat_index(e, at, &md_type_in(g, n->out)->shape);
    f.index = md_index_vector(e, &flat, at->lanes);
  }
  step s[MD_MAX_EXPR];
  for (int i = 0; i < x->num; i++) s[i] = apply(&f, &x->node[i], s);
  for (int i = 0; i < x->num_out; i++) {
    md_val v = n->out + (md_val)i;
    md_ir ir = settle(&f, b->k->r, v, &s[x->out[i]]);
    name_result(b, n, ir);
    remember(b, v, at, ir);
  }
}

// Every element backwards, or every other one. Two vectors have all of those and none behind: the second begins at the
// last element of the first.
static md_ir load_near(md_emit *e, md_dtype d, md_ir ptr, const md_index *x, const md_spot *at) {
  int lanes = at->lanes, last = lanes - 1, from[64];
  int64_t down = x->step < 0 ? -x->step * last : 0;
  bool all = x->step == -1;
  for (int i = 0; i < lanes; i++) {
    int nth = x->step < 0 ? last - i : i;
    from[i] = all ? nth : 2 * nth < lanes ? 2 * nth : 2 * nth + 1;
  }
  md_ir base = md_iaddc(e, x->base, -down), mask = at->mask;
  if (mask) mask = md_shuffle(e, mask, NULL, from, lanes);
  md_ir low = md_load(e, d, ptr, base, lanes, mask);
  md_ir high = all ? NULL : md_load(e, d, ptr, md_iaddc(e, base, last), lanes, NULL);
  return md_shuffle(e, low, high, from, lanes);
}

static md_ir load(md_body *b, md_val v, const md_spot *at) {
  md_kernel *k = b->k;
  md_emit *e = &k->e;
  const md_type *t = md_type_in(k->r->g, v);
  md_ir ptr = md_kernel_arg(k, v);
  md_index x = md_spot_offset(e, t, at);
  bool fixed = !md_kernel_writes(k, v);
  md_ir ir;
  if (!x.vec && x.step == 0) {
    ir = md_load(e, t->dtype, ptr, x.base, 1, NULL);
    if (fixed) md_invariant(e, ir);
    return md_splat(e, ir, at->lanes);
  }
  if (!x.vec && x.step == 1) {
    // Blocked tensors have their padding, so the mask is needed by row-major ones only.
    ir = md_load(e, t->dtype, ptr, x.base, at->lanes, t->block ? NULL : at->mask);
    return fixed ? md_invariant(e, ir) : ir;
  }
  bool near = !x.vec && (x.step == -1 || (!at->mask && (x.step == 2 || x.step == -2)));
  if (near) return load_near(e, t->dtype, ptr, &x, at);
  return md_gather(e, t->dtype, ptr, md_index_vector(e, &x, at->lanes), at->mask);
}

static md_ir recalled(const md_body *b, md_val v, const md_spot *at) {
  for (int i = 0; i < b->num_given; i++) {
    if (b->given[i].val == v) return b->given[i].ir;
  }
  for (int i = b->num_memo - 1; i >= 0; i--) {
    if (b->memo[i].val == v && md_spot_equal(&b->memo[i].at, at)) return b->memo[i].ir;
  }
  return NULL;
}

static md_ir value_at(md_body *b, md_val v, const md_spot *at) {
  md_emit *e = &b->k->e;
  const md_graph *g = b->k->r->g;
  md_ir ir = recalled(b, v, at);
  if (ir) return ir;
  const md_node *n = md_def(g, v);
  if (n->op == MD_OP_constant) {
    md_dtype d = md_type_in(g, v)->dtype;
    return md_const(e, md_compute_type(e, d), at->lanes, md_rounded(d, n->attr.value.value));
  }
  if (!md_inner(b->k->r, v) || md_kernel_is_ready(b->k, v)) {
    ir = load(b, v, at);
  } else if (md_ops[n->op].role == MD_POINTWISE) {
    make_pointwise(b, n, at);
    return recalled(b, v, at);
  } else {
    MD_ASSERT(md_ops[n->op].role == MD_VIEW, "%s has no value before it ran", md_ops[n->op].name);
    md_spot in = md_spot_view(e, g, n, at);
    ir = value_at(b, n->in[0], &in);
  }
  remember(b, v, at, ir);
  return ir;
}

md_point md_point_of(int rank, md_ir *at, int lane_axis, int lanes, md_ir mask) {
  md_point p = {.rank = rank,
                .tail = rank,
                .lane_axis = lanes > 1 ? lane_axis : -1,
                .lanes = lanes,
                .mask = mask};
  memcpy(p.at, at, sizeof *at * (size_t)rank);
  return p;
}

void md_body_init(md_body *b, md_kernel *k) { *b = (md_body){.k = k}; }
void md_body_reset(md_body *b) { b->num_memo = b->num_given = 0; }

void md_body_set(md_body *b, md_val v, md_ir value) {
  for (int i = 0; i < b->num_given; i++) {
    if (b->given[i].val != v) continue;
    b->given[i].ir = value;
    return;
  }
  MD_ASSERT(b->num_given < MD_COUNT(b->given), "too many given values");
  b->given[b->num_given].val = v;
  b->given[b->num_given++].ir = value;
}

md_ir md_body_value(md_body *b, md_val v, const md_point *p) {
  md_spot at = md_spot_of(p);
  return value_at(b, v, &at);
}

// What will be gone from the last cache before anybody reads it need not come there. Over an input it is there
// already, and an epilogue that reads other tensors beside it is slower so.
static bool passes_cache(const md_kernel *k, md_val v) {
  const md_type *t = md_type_in(k->r->g, v);
  return k->r->anchor && t->block * md_dtype_size(t->dtype) == MD_LINE &&
         md_type_bytes(t) > k->e.cpu->cache_bytes / 2 && md_is_output(k->whole, v) &&
         !md_in_epilogue(k->r, md_inner(k->r, v)) && !md_is_over_input(k->whole, v);
}

void md_body_store(md_body *b, md_val v, const md_point *p, md_ir value) {
  md_emit *e = &b->k->e;
  const md_type *t = md_type_in(b->k->r->g, v);
  md_spot at = md_spot_of(p);
  md_index x = md_spot_offset(e, t, &at);
  md_ir ptr = md_kernel_arg(b->k, v);
  if (!x.vec && (x.step == 1 || at.lanes == 1)) {
    if (t->block && at.mask) value = md_select(e, at.mask, value, md_zero(LLVMTypeOf(value)));
    if (at.lanes == t->block && passes_cache(b->k, v))
      md_store_line(e, t->dtype, ptr, x.base, value);
    else md_store(e, t->dtype, ptr, x.base, value, t->block ? NULL : at.mask);
  } else {
    md_scatter(e, t->dtype, ptr, md_index_vector(e, &x, at.lanes), value, at.mask);
  }
}
