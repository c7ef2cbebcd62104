// SPDX-License-Identifier: Apache-2.0
// Ops that are measured alone: what a problem may say, and the graph that it stands for.
#include "modistc/bench.h"

#include "models/models.h"

#include <stdlib.h>

static md_val weights(md_builder *b, const char *name, const md_shape *shape) {
  md_state_attr init = {.init = MD_INIT_normal, .b = 0.05};
  return md_state(b, name, md_type_of(MD_F32, shape->rank, shape->dim), &init);
}

static md_graph *finished(md_builder *b) {
  if (!b->failed) return b->g;
  md_graph_destroy(b->g);
  return NULL;
}

// --- conv3d: x[n,c,t,h,w], w[o,c,k,k,k]

typedef struct Conv {
  md_conv3d_attr attr;
  md_shape x, w, y;
} Conv;

// False: reported; the kernel is larger than what it slides over.
static bool conv_of(const md_problem *p, Conv *c, md_diags *d) {
  int64_t n = *md_problem_size(p, 'n'), in = *md_problem_size(p, 'c'),
          out = *md_problem_size(p, 'o');
  const int64_t *k = md_problem_size(p, 'k'), *s = md_problem_size(p, 's'),
                *pad = md_problem_size(p, 'p'), *dil = md_problem_size(p, 'd');
  *c = (Conv){.x = {5, {n, in}}, .w = {5, {out, in}}, .y = {5, {n, out}}};
  for (int i = 0; i < 3; i++) {
    int64_t size = *md_problem_size(p, "thw"[i]), window = dil[i] * (k[i] - 1) + 1;
    int64_t at_edge = pad[i] == MD_SIZE_DERIVED ? window / 2 : pad[i];
    int64_t room = size + 2 * at_edge - window;
    if (room < 0)
      return md_error(d, E0401, MD_NOWHERE,
                      "--op: the kernel does not fit into the padded input along %c", "thw"[i]);
    c->attr.stride.d[i] = s[i];
    c->attr.dilation.d[i] = dil[i];
    c->attr.pad.d[i] = at_edge;
    c->x.dim[2 + i] = size;
    c->w.dim[2 + i] = k[i];
    c->y.dim[2 + i] = room / s[i] + 1;
  }
  return true;
}

// A pooling of single elements in front of each operand keeps it inside the program, in the layout
// that a network would have, and is never fused with the convolution.
static md_val inside(md_builder *b, const char *name, const md_shape *shape) {
  md_pool3d_attr one = {.kernel = D3(1, 1, 1)};
  return md_max_pool3d(b, md_input(b, name, md_type_of(MD_F32, 5, shape->dim)), &one);
}

static md_graph *make_conv(const md_problem *p, md_direction way, md_diags *d) {
  Conv c;
  if (!conv_of(p, &c, d)) return NULL;
  md_builder b;
  md_builder_init(&b, md_graph_create("conv"), d);
  md_val y;
  if (way == MD_FORWARD) {
    y = md_conv3d(&b, inside(&b, "x", &c.x), weights(&b, "w", &c.w), MD_NONE, &c.attr);
  } else if (way == MD_DGRAD) {
    y = md_conv3d_dgrad(&b, inside(&b, "dy", &c.y), weights(&b, "w", &c.w), c.x, &c.attr);
  } else {
    md_val x = inside(&b, "x", &c.x);
    y = md_conv3d_wgrad(&b, inside(&b, "dy", &c.y), x, c.w, &c.attr);
  }
  md_return(&b, "s", md_sum(&b, y, (md_dims){0}));
  return finished(&b);
}

// --- bottleneck: 1x1x1, the convolution, 1x1x1, each with batch norm and ReLU, as inside a network

static md_val norm_relu(md_builder *b, md_val x, const char *name) {
  int64_t c = md_shape_of(b, x).dim[1];
  md_state_attr one = {.init = MD_INIT_ones}, zero = {.init = MD_INIT_zeros};
  md_val g = md_state(b, md_format(b->g->arena, "%s.g", name), md_type_of(MD_F32, 1, &c), &one);
  md_val s = md_state(b, md_format(b->g->arena, "%s.b", name), md_type_of(MD_F32, 1, &c), &zero);
  md_val mean = md_moments(b, x, 1);
  return md_relu(b, md_batch_norm(b, x, g, s, mean, md_result_of(b, mean, 1), 1e-5, true));
}

static md_graph *make_bottleneck(const md_problem *p, md_direction way, md_diags *d) {
  (void)way;
  Conv c;
  if (!conv_of(p, &c, d)) return NULL;
  md_builder b;
  md_builder_init(&b, md_graph_create("bottleneck"), d);
  md_conv3d_attr point = {0};
  md_shape before = {5, {c.x.dim[1], c.x.dim[1], 1, 1, 1}},
           after = {5, {c.x.dim[1], c.y.dim[1], 1, 1, 1}};
  md_val x = md_input(&b, "x", md_type_of(MD_F32, 5, c.x.dim));
  md_val w[3] = {weights(&b, "w0", &before), weights(&b, "w1", &c.w), weights(&b, "w2", &after)};
  md_val h = norm_relu(&b, md_conv3d(&b, x, w[0], MD_NONE, &point), "n0");
  h = norm_relu(&b, md_conv3d(&b, h, w[1], MD_NONE, &c.attr), "n1");
  h = norm_relu(&b, md_conv3d(&b, h, w[2], MD_NONE, &point), "n2");
  md_val grads = md_gradient(&b, md_mean(&b, md_mul(&b, h, h), (md_dims){0}), w, 3);
  for (int i = 0; i < 3; i++) {
    md_val sum = md_sum(&b, md_result_of(&b, grads, i), (md_dims){0});
    md_return(&b, md_format(b.g->arena, "g%d", i), sum);
  }
  return finished(&b);
}

// --- matmul: y = x[m,k] w[k,n]

static md_graph *make_matmul(const md_problem *p, md_direction way, md_diags *d) {
  int64_t m = *md_problem_size(p, 'm'), n = *md_problem_size(p, 'n'), k = *md_problem_size(p, 'k');
  md_type x = md_type_of(MD_F32, 2, (int64_t[]){m, k}),
          y = md_type_of(MD_F32, 2, (int64_t[]){m, n});
  md_shape w = {2, {k, n}};
  md_builder b;
  md_builder_init(&b, md_graph_create("matmul"), d);
  md_val result;
  if (way == MD_FORWARD) {
    result = md_matmul(&b, md_input(&b, "x", x), weights(&b, "w", &w), false, false);
  } else if (way == MD_DGRAD) {
    result = md_matmul(&b, md_input(&b, "dy", y), weights(&b, "w", &w), false, true);
  } else {
    md_val in = md_input(&b, "x", x);
    result = md_matmul(&b, in, md_input(&b, "dy", y), true, false);
  }
  md_return(&b, "y", result);
  return finished(&b);
}

// --- infonce: q queries against r bank rows of width d, two losses that share the negatives, as the
// visual query has them (spec 2): against its own key and against that of the other modality

static md_val info_nce(md_builder *b, md_val q, const char *key, md_val lse, double tau) {
  md_shape s = md_shape_of(b, q);
  md_val k = md_l2_normalize(b, md_input(b, key, md_type_of(MD_F32, 2, s.dim)), 1e-12);
  md_val a = md_affine(b, md_sum(b, md_mul(b, q, k), (md_dims){.n = 1, .d = {1}}), 1 / tau, 0);
  md_val d = md_sub(b, lse, a);
  return md_mean(b, md_add_node(b, MD_OP_softplus, &d, 1, NULL), (md_dims){0});
}

static md_graph *make_infonce(const md_problem *p, md_direction way, md_diags *d) {
  const double tau = 0.1;
  int64_t rows = *md_problem_size(p, 'r');
  int64_t query[] = {*md_problem_size(p, 'q'), *md_problem_size(p, 'd')},
          bank_dim[] = {rows, query[1]};
  md_builder b;
  md_builder_init(&b, md_graph_create("infonce"), d);
  md_state_attr unit = {.init = MD_INIT_unit_rows}, others = {.init = MD_INIT_fill, .a = 7};
  md_val q = md_l2_normalize(&b, md_input(&b, "q", md_type_of(MD_F32, 2, query)), 1e-12);
  md_val ids = md_input(&b, "ids", md_type_of(MD_I32, 1, query));  // 0 or 1: no row is masked
  md_val bank = md_state(&b, "bank", md_type_of(MD_F32, 2, bank_dim), &unit);
  md_val bank_ids = md_state(&b, "bank_ids", md_type_of(MD_I32, 1, &rows), &others);
  md_val s = md_matmul(&b, q, bank, false, true);
  md_attr scaled = {.f = {.value = tau}};
  md_val z = md_add_node(&b, MD_OP_nce_mask, (md_val[]){s, ids, bank_ids}, 3, &scaled);
  md_val lse = md_add_node(&b, MD_OP_logsumexp, &z, 1, NULL);
  md_val loss = md_add(&b, info_nce(&b, q, "k1", lse, tau), info_nce(&b, q, "k2", lse, tau));
  md_return(&b, "loss", loss);
  if (way == MD_BOTH) md_return(&b, "dq", md_gradient(&b, loss, &q, 1));
  return finished(&b);
}

// --- motion: the motion network of modist-r3d50 in training, with its head

static void return_gradients(md_builder *b, md_val loss, const md_params *p) {
  md_val *wrt = MD_NEW_ARRAY(b->g->arena, md_val, p->num);
  for (int i = 0; i < p->num; i++) wrt[i] = p->item[i].val;
  md_val grads = md_gradient(b, loss, wrt, p->num);
  for (int i = 0; i < p->num; i++) md_return(b, p->item[i].name, md_result_of(b, grads, i));
}

static md_graph *make_motion(const md_problem *p, md_direction way, md_diags *d) {
  const md_net *net = md_net_from("frames2d");
  md_shape clip = {5,
                   {*md_problem_size(p, 'n'), 1, *md_problem_size(p, 't'), *md_problem_size(p, 'h'),
                    *md_problem_size(p, 'w')}};
  md_builder b;
  md_builder_init(&b, md_graph_create("motion"), d);
  md_params params = {0};
  md_net_options o = {.train = true, .track = true, .params = &params};
  // As in training: the planes are one.
  md_val x = md_input(&b, "x", md_type_of(MD_F32, clip.rank, clip.dim));
  clip.dim[1] = net->in_channels;
  x = md_broadcast(&b, x, clip, (md_dims){.n = 5, .d = {0, 1, 2, 3, 4}});
  md_val f = md_net_trunk(&b, net, "m", &o, x);
  md_val e = md_net_head(&b, net, "m", &o, f);
  md_val loss = md_mean(&b, md_mul(&b, e, e), (md_dims){0});
  md_return(&b, "loss", loss);
  if (way == MD_BOTH) return_gradients(&b, loss, &params);
  free(params.item);
  return finished(&b);
}

// --- the rows

#define CONV_KEYS                                                                                  \
  {'n', 1, 1, 1, "samples"}, {'c', 1, MD_SIZE_NEEDED, 1, "channels in"}, {'t', 1, 1, 1, "frames"}, \
      {'h', 1, MD_SIZE_NEEDED, 1, "height"}, {'w', 1, MD_SIZE_NEEDED, 1, "width"},                 \
      {'o', 1, MD_SIZE_NEEDED, 1, "channels out"}, {'k', 3, 1, 1, "kernel"},                       \
      {'s', 3, 1, 1, "stride"}, {'p', 3, MD_SIZE_DERIVED, 0, "padding"},                           \
      {'d', 3, 1, 1, "dilation"}

const md_bench_op md_bench_ops[] = {
    {.problem = {"conv3d", "conv3d:n2c64t8h56w56o64k1x3x3", {CONV_KEYS}},
     .only = "conv3d",
     .goes = {[MD_FORWARD] = true, [MD_DGRAD] = true, [MD_WGRAD] = true},
     .make = make_conv},
    {.problem = {"bottleneck", "bottleneck:n2c64t8h56w56o64k1x3x3", {CONV_KEYS}},
     .goes = {[MD_BOTH] = true},
     .preset = MD_BOTH,
     .make = make_bottleneck},
    {.problem = {"matmul",
                 "matmul:m64n128k2048",
                 {{'m', 1, MD_SIZE_NEEDED, 1, "rows"},
                  {'n', 1, MD_SIZE_NEEDED, 1, "columns"},
                  {'k', 1, MD_SIZE_NEEDED, 1, "summed"}}},
     .only = "matmul",
     .goes = {[MD_FORWARD] = true, [MD_DGRAD] = true, [MD_WGRAD] = true},
     .make = make_matmul},
    {.problem = {"infonce",
                 "infonce:q64r65536d128",
                 {{'q', 1, MD_SIZE_NEEDED, 1, "queries"},
                  {'r', 1, MD_SIZE_NEEDED, 1, "rows of the bank"},
                  {'d', 1, MD_SIZE_NEEDED, 1, "width"}}},
     .goes = {[MD_FORWARD] = true, [MD_BOTH] = true},
     .preset = MD_BOTH,
     .make = make_infonce},
    {.problem = {"motion",
                 "motion:n2t16h224w224",
                 {{'n', 1, 1, 1, "samples"},
                  {'t', 1, MD_SIZE_NEEDED, 1, "frames"},
                  {'h', 1, MD_SIZE_NEEDED, 1, "height"},
                  {'w', 1, MD_SIZE_NEEDED, 1, "width"}}},
     .goes = {[MD_FORWARD] = true, [MD_BOTH] = true},
     .preset = MD_BOTH,
     .make = make_motion},
};
const int md_num_bench_ops = MD_COUNT(md_bench_ops);
