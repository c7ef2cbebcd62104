// SPDX-License-Identifier: Apache-2.0
// The MoDist training step (spec §2, §3.4) as one graph.
//
//   vq -> V  -> v     vk -> V' -> v'      L_v  = IN(v, v', bank_V)    L_m  = IN(m, m', bank_M)
//   mq -> M  -> m     mk -> M' -> m'      L_mv = IN(v, m', bank_?) + IN(m, v', bank_?)
//
// `?` is the query's own modality (the paper's eq. 2) or, with cross_key, the key's. Each term is
// declared plainly, logits and all; pass fuse-infonce makes the streaming form of it.
#include "models/models.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Step {
  const md_step *s;
  md_builder *b;
  md_params params;  // of V, then M
  int num_visual;    // parameters of V (and of V': same order)
  md_params v_keys, m_keys;
  md_val ids, perm, unperm;
} Step;

// One modality: query and key embeddings, its bank.
typedef struct Side {
  md_val q, k;       // [b,d]
  md_val bank, ids;  // as the losses see them
  md_val bank_state;
} Side;

static md_type type_of(md_dtype d, int rank, const int64_t *dim) {
  return md_type_of(d, rank, dim);
}

static md_val scalar_input(Step *t, const char *name) {
  return md_input(t->b, name, type_of(MD_F32, 1, (int64_t[]){1}));
}

static md_val visual_clip(Step *t, const char *name) {
  const md_step *s = t->s;
  int64_t dim[5] = {s->batch, s->visual.in_channels, s->clip.frames, s->clip.size, s->clip.size};
  if (s->raw_inputs) return md_input(t->b, name, type_of(MD_F32, 5, dim));
  return md_augment_clip(t->b, &s->augment, name, md_input(t->b, name, type_of(MD_U8, 5, dim)));
}

// One u8 plane -> three equal f32 channels in [0,1] (spec §4.3.6); planes of a flow or of signed
// differences, stored around 128, -> [-1,1] (spec §4.1, §4.2).
static md_val motion_clip(Step *t, const char *name) {
  const md_step *s = t->s;
  md_builder *b = t->b;
  int planes = MD_MAX(s->motion_planes, 1);
  int64_t dim[5] = {s->batch, planes, s->mclip.frames, s->mclip.size, s->mclip.size};
  md_shape full = {.rank = 5, .dim = {dim[0], s->motion.in_channels, dim[2], dim[3], dim[4]}};
  if (s->raw_inputs) return md_input(b, name, type_of(MD_F32, 5, full.dim));
  md_val x = md_input(b, name, type_of(MD_U8, 5, dim));
  if (planes > 1) return md_affine(b, md_cast(b, x, MD_F32), 1.0 / 127, -128.0 / 127);
  x = md_affine(b, md_cast(b, x, MD_F32), 1.0 / 255, 0);
  return md_broadcast(b, x, full, (md_dims){.n = 5, .d = {0, 1, 2, 3, 4}});
}

static md_val embed(Step *t, const md_net *net, const char *prefix, const md_net_options *o,
                    md_val x) {
  md_val f = md_net_trunk(t->b, net, prefix, o, x);
  return md_l2_normalize(t->b, md_net_head(t->b, net, prefix, o, f), 1e-12);
}

// Keys see their groups in another order than queries do (spec §3.3): permuted before, back after.
static md_val shuffle(Step *t, md_val x, md_val order) {
  if (t->s->bn_groups <= 1) return x;
  return md_add_node(t->b, MD_OP_gather_rows, (md_val[]){x, order}, 2, NULL);
}

// Query and key embeddings of one modality: net V with prefix "v", key net with "vk".
static Side encode(Step *t, const md_net *net, const char *prefix, const char *key_prefix, md_val q,
                   md_val k, md_params *keys) {
  const md_step *s = t->s;
  md_net_options query = {.train = true,
                          .track = true,
                          .bn_groups = s->bn_groups,
                          .zero_init = s->zero_init,
                          .hash_init = s->hash_init,
                          .params = &t->params};
  md_net_options key = query;
  key.track = s->track_keys;
  key.params = keys;
  key.init_from = prefix;
  Side side = {0};
  side.q = embed(t, net, prefix, &query, q);
  md_set_name(t->b, side.q, prefix);
  side.k = shuffle(t, embed(t, net, key_prefix, &key, shuffle(t, k, t->perm)), t->unperm);
  md_set_name(t->b, side.k, key_prefix);
  return side;
}

// The bank of one modality, pushed before the losses when enqueue = before.
static void add_bank(Step *t, Side *side, const char *name, int64_t dim, md_val ids, md_val ptr) {
  const md_step *s = t->s;
  md_builder *b = t->b;
  md_state_attr init = {.init = s->bank_empty ? MD_INIT_zeros : MD_INIT_unit_rows};
  side->bank_state = md_state(b, name, type_of(MD_F32, 2, (int64_t[]){s->bank, dim}), &init);
  md_val next =
      md_add_node(b, MD_OP_bank_push, (md_val[]){side->bank_state, side->k, ptr}, 3, NULL);
  md_update_state(b, side->bank_state, next);
  side->bank = s->enqueue_before ? next : side->bank_state;
  side->ids = ids;
}

typedef struct Term {
  md_val loss, top1;
} Term;

// IN(q, k, bank), mean over the batch, and how often q.k beats every counted negative.
static Term info_nce(Step *t, md_val q, md_val k, const Side *bank) {
  md_builder *b = t->b;
  md_val s = md_matmul(b, q, bank->bank, false, true);  // [b,n]
  md_attr tau = {.f = {.value = t->s->tau}};
  md_val z = md_add_node(b, MD_OP_nce_mask, (md_val[]){s, t->ids, bank->ids}, 3, &tau);
  md_val lse = md_add_node(b, MD_OP_logsumexp, &z, 1, NULL);  // [b]
  md_attr rows = {.axes = {.axes = {.n = 1, .d = {1}}}};
  md_val top = md_add_node(b, MD_OP_max, &z, 1, &rows);  // [b]
  md_val a = md_affine(b, md_sum(b, md_mul(b, q, k), (md_dims){.n = 1, .d = {1}}), 1 / t->s->tau,
                       0);  // [b]
  md_val d = md_sub(b, lse, a);
  // -log(e^a / (e^a + e^lse)) = softplus(lse - a)
  Term term = {.loss = md_mean(b, md_add_node(b, MD_OP_softplus, &d, 1, NULL), (md_dims){0})};
  md_val hit = md_add_node(b, MD_OP_less, (md_val[]){top, a}, 2, NULL);
  term.top1 = md_mean(b, hit, (md_dims){0});
  return term;
}

// Standard deviation of the embedding over the batch, mean over its dimensions: near 0 is collapse.
static md_val spread(Step *t, md_val q) {
  md_builder *b = t->b;
  md_val var = md_result_of(b, md_moments(b, q, 1), 1);  // [1,d]
  return md_mean(b, md_add_node(b, MD_OP_sqrt, &var, 1, NULL), (md_dims){0});
}

static md_val weighted(md_builder *b, md_val total, md_val loss, double w) {
  if (w == 0) return total;
  md_val x = w == 1 ? loss : md_affine(b, loss, w, 0);
  return total == MD_NONE ? x : md_add(b, total, x);
}

static void report(Step *t, const char *name, Term term) {
  md_return(t->b, md_format(t->b->g->arena, "loss_%s", name), term.loss);
  md_return(t->b, md_format(t->b->g->arena, "top1_%s", name), term.top1);
}

static bool decays(const Step *t, md_val p) {
  return t->s->decay_1d || md_shape_of(t->b, p).rank > 1;
}

// A state "<kind>.<parameter>" of the parameter's type, zero at first.
static md_val slot(Step *t, const char *kind, const md_param *p) {
  md_state_attr zeros = {.init = MD_INIT_zeros};
  return md_state(t->b, md_format(t->b->g->arena, "%s.%s", kind, p->name),
                  *md_type_in(t->b->g, p->val), &zeros);
}

// One parameter's update by the optimiser; returns its new value.
static md_val update(Step *t, const md_param *p, md_val grad, md_val lr, md_val c1, md_val c2) {
  const md_step *s = t->s;
  md_builder *b = t->b;
  md_shape shape = md_shape_of(b, p->val);
  md_dims first = {.n = 1, .d = {0}};
  double decay = decays(t, p->val) ? s->weight_decay : 0;
  md_val rate = md_broadcast(b, lr, shape, first);
  if (s->opt == MD_OPT_SGD) {
    md_attr a = {.sgd = {.momentum = s->momentum, .weight_decay = decay, .nesterov = s->nesterov}};
    md_val buf = slot(t, "sgd", p);
    md_val next = md_add_node(b, MD_OP_sgd, (md_val[]){p->val, grad, buf, rate}, 4, &a);
    md_update_state(b, buf, md_result_of(b, next, 1));
    md_update_state(b, p->val, next);
    return next;
  }
  md_attr a = {
      .adamw = {.beta1 = s->beta1, .beta2 = s->beta2, .eps = s->adam_eps, .weight_decay = decay}};
  md_val m = slot(t, "adam.m", p), v = slot(t, "adam.v", p);
  md_val in[7] = {p->val,
                  grad,
                  m,
                  v,
                  rate,
                  md_broadcast(b, c1, shape, first),
                  md_broadcast(b, c2, shape, first)};
  md_val next = md_add_node(b, MD_OP_adamw, in, 7, &a);
  md_update_state(b, m, md_result_of(b, next, 1));
  md_update_state(b, v, md_result_of(b, next, 2));
  md_update_state(b, p->val, next);
  return next;
}

// theta' = lambda theta' + (1 - lambda) theta, after the update (README of the golden sets: the same
// keys as averaging before them, as theta' starts equal to theta).
static void average(Step *t, const md_param *key, md_val next) {
  md_attr a = {.f = {.value = 1 - t->s->ema}};
  md_update_state(t->b, key->val, md_add_node(t->b, MD_OP_lerp, (md_val[]){key->val, next}, 2, &a));
}

static void optimise(Step *t, md_val loss) {
  md_builder *b = t->b;
  const md_step *s = t->s;
  bool adam = s->opt == MD_OPT_ADAMW;
  bool reached[] = {[false] = s->w_m != 0 || s->w_mv != 0,
                    [true] = s->mode == MD_MODE_SUPERVISED || s->w_v != 0 || s->w_mv != 0};
  md_val lr = scalar_input(t, "lr");
  md_val c1 = adam ? scalar_input(t, "c1") : MD_NONE, c2 = adam ? scalar_input(t, "c2") : MD_NONE;
  int n = t->params.num;
  md_val *wrt = MD_NEW_ARRAY(b->g->arena, md_val, n);
  for (int i = 0; i < n; i++) wrt[i] = t->params.item[i].val;
  md_val grads = md_gradient(b, loss, wrt, n);
  for (int i = 0; i < n && !b->failed; i++) {
    bool visual = i < t->num_visual;
    const md_param *p = &t->params.item[i];
    // What no term reaches is not trained: neither weight decay nor momentum moves it.
    md_val next = reached[visual] ? update(t, p, md_result_of(b, grads, i), lr, c1, c2) : p->val;
    const md_params *keys = visual ? &t->v_keys : &t->m_keys;
    int at = visual ? i : i - t->num_visual;
    if (at < keys->num) average(t, &keys->item[at], next);
  }
}

static void supervised(Step *t) {
  const md_step *s = t->s;
  md_builder *b = t->b;
  md_net_options o = {.train = true,
                      .track = true,
                      .bn_groups = s->bn_groups,
                      .zero_init = s->zero_init,
                      .hash_init = s->hash_init,
                      .params = &t->params};
  md_val f = md_net_trunk(b, &s->visual, "v", &o, visual_clip(t, "vq"));
  md_val logits = md_linear(b, &o, "fc", s->classes, f);
  md_val labels = md_input(b, "labels", type_of(MD_I32, 1, &s->batch));
  md_val each = md_add_node(b, MD_OP_cross_entropy, (md_val[]){logits, labels}, 2, NULL);
  md_val loss = md_mean(b, each, (md_dims){0});
  md_attr k = {.i = {.value = 1}};
  md_val hit = md_add_node(b, MD_OP_topk_hit, (md_val[]){logits, labels}, 2, &k);
  t->num_visual = t->params.num;
  md_return(b, "loss", loss);
  md_return(b, "top1", md_mean(b, hit, (md_dims){0}));
  md_return(b, "logits", logits);
  optimise(t, loss);
}

static void contrastive(Step *t) {
  const md_step *s = t->s;
  md_builder *b = t->b;
  bool both = s->mode == MD_MODE_MODIST;
  if (s->bn_groups > 1) {
    t->perm = md_input(b, "perm", type_of(MD_I32, 1, &s->batch));
    t->unperm = md_input(b, "unperm", type_of(MD_I32, 1, &s->batch));
  }
  md_val vq = visual_clip(t, "vq"), vk = visual_clip(t, "vk");
  md_val mq = both ? motion_clip(t, "mq") : MD_NONE, mk = both ? motion_clip(t, "mk") : MD_NONE;
  t->ids = md_input(b, "ids", type_of(MD_I32, 1, &s->batch));
  Side v = encode(t, &s->visual, "v", "vk", vq, vk, &t->v_keys), m = {0};
  t->num_visual = t->params.num;
  if (both) m = encode(t, &s->motion, "m", "mk", mq, mk, &t->m_keys);

  md_state_attr unknown = {.init = MD_INIT_fill, .a = s->bank_empty ? -2 : -1};
  md_state_attr zeros = {.init = MD_INIT_zeros};
  md_val ids = md_state(b, "bank.ids", type_of(MD_I32, 1, &s->bank), &unknown);
  md_val ptr = md_state(b, "bank.ptr", type_of(MD_I32, 1, (int64_t[]){1}), &zeros);
  md_val next_ids = md_add_node(b, MD_OP_bank_push, (md_val[]){ids, t->ids, ptr}, 3, NULL);
  md_attr ring = {.word = {s->batch, s->bank}};
  md_val next_ptr = md_add_node(b, MD_OP_ring_next, &ptr, 1, &ring);
  md_update_state(b, ids, next_ids);
  md_update_state(b, ptr, next_ptr);
  md_val seen = s->enqueue_before ? next_ids : ids;
  add_bank(t, &v, "bank.v", s->visual.embed, seen, ptr);
  if (both) add_bank(t, &m, "bank.m", s->motion.embed, seen, ptr);

  md_val loss = MD_NONE;
  Term tv = info_nce(t, v.q, v.k, &v);
  loss = weighted(b, loss, tv.loss, s->w_v);
  Term tm = {0}, tvm = {0}, tmv = {0};
  if (both) {
    tm = info_nce(t, m.q, m.k, &m);
    tvm = info_nce(t, v.q, m.k, s->cross_key ? &m : &v);
    tmv = info_nce(t, m.q, v.k, s->cross_key ? &v : &m);
    loss = weighted(b, loss, tm.loss, s->w_m);
    loss = weighted(b, weighted(b, loss, tvm.loss, s->w_mv), tmv.loss, s->w_mv);
  }
  md_return(b, "loss", loss);
  report(t, "v", tv);
  if (both) {
    report(t, "m", tm);
    report(t, "vm", tvm);
    report(t, "mv", tmv);
  }
  md_return(b, "std_v", spread(t, v.q));
  if (both) md_return(b, "std_m", spread(t, m.q));
  optimise(t, loss);
}

md_step md_step_defaults(void) {
  return (md_step){.visual = *md_net_from("r3d50"),
                   .motion = *md_net_from("frames2d"),
                   .batch = 8,
                   .augment = {.color = true, .gray = true, .blur = true},
                   .clip = {8, 224},
                   .mclip = {16, 224},
                   .tau = 0.1,
                   .w_v = 1,
                   .w_m = 1,
                   .w_mv = 1,
                   .ema = 0.999,
                   .bank = 65536,
                   .bn_groups = 1,
                   .momentum = 0.9,
                   .weight_decay = 1e-4,
                   .beta1 = 0.9,
                   .beta2 = 0.999,
                   .adam_eps = 1e-8,
                   .nesterov = true};
}

md_graph *md_step_graph(const md_step *s, md_diags *d) {
  md_graph *g = md_graph_create("step");
  md_builder b;
  md_builder_init(&b, g, d);
  Step t = {.s = s, .b = &b};
  if (s->mode == MD_MODE_SUPERVISED) {
    supervised(&t);
  } else {
    contrastive(&t);
  }
  free(t.params.item);
  free(t.v_keys.item);
  free(t.m_keys.item);
  if (!b.failed) return g;
  md_graph_destroy(g);
  return NULL;
}

md_graph *md_features_graph(const md_step *s, md_diags *d) {
  md_graph *g = md_graph_create("features");
  md_builder b;
  md_builder_init(&b, g, d);
  md_step plain = *s;
  plain.augment = (md_augment){0};
  Step t = {.s = &plain, .b = &b};
  md_net_options o = {.train = false};
  md_return(&b, "features", md_net_trunk(&b, &s->visual, "v", &o, visual_clip(&t, "clip")));
  if (!b.failed) return g;
  md_graph_destroy(g);
  return NULL;
}
