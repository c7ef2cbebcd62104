// SPDX-License-Identifier: Apache-2.0
// A residual network as a graph: stem, four stages of blocks, global average, head.
//
//   bottleneck   a: kt x 1 x 1   b: 1 x 3 x 3, strided   c: 1 x 1 x 1, four times as wide
//   basic        a: kt x 3 x 3, strided                  b: 1 x 3 x 3 (kt x 3 x 3 if both_temporal)
//   shortcut     1 x 1 x 1, strided, where the shape changes
//
// Each convolution is followed by batch norm; no convolution has a bias (spec §1.1).
#include "models/models.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BN_EPS 1e-5
#define BN_MOMENTUM 0.1

typedef struct Net {
  md_builder *b;
  const md_net_options *o;
  const md_net *net;
} Net;

static md_type type_of(int rank, const int64_t *dim) { return md_type_of(MD_F32, rank, dim); }

// A state named inside the present scope. With init_from it starts as a copy of the state of that
// prefix: "vk.s1.conv1.w" starts as "v.s1.conv1.w".
static md_val declare(md_builder *b, const md_net_options *o, const char *name, md_type type,
                      md_state_attr init, bool learnable) {
  if (o->init_from) {
    const char *rest = strchr(b->scope, '.');
    init = (md_state_attr){
        .init = MD_INIT_copy,
        .from = md_format(b->g->arena, "%s%s.%s", o->init_from, rest ? rest : "", name)};
  }
  md_val v = md_state(b, name, type, &init);
  if (learnable && o->params && v != MD_NONE) {
    md_params *p = o->params;
    md_param item = {.val = v, .name = md_def(b->g, v)->name};
    MD_PUSH(p->item, p->num, p->cap, item);
  }
  return v;
}

static int64_t channels(const md_builder *b, md_val x) {
  md_shape s = md_shape_of(b, x);
  return s.rank > 1 ? s.dim[1] : 1;
}

static md_val conv(Net *n, md_val x, const char *name, int64_t out, md_dim3 k, md_dim3 stride,
                   int64_t dilation) {
  md_builder *b = n->b;
  int64_t dim[5] = {out, channels(b, x), k.d[0], k.d[1], k.d[2]};
  double volume = (double)(k.d[0] * k.d[1] * k.d[2]);
  md_state_attr init =
      n->o->hash_init
          ? (md_state_attr){.init = MD_INIT_uniform, .b = sqrt(6.0 / ((double)dim[1] * volume))}
          : (md_state_attr){.init = MD_INIT_normal, .b = sqrt(2.0 / ((double)out * volume))};
  int mark = md_scope_push(b, "%s", name);
  md_val w = declare(b, n->o, "w", type_of(5, dim), init, true);
  md_scope_pop(b, mark);
  md_conv3d_attr a = {.stride = stride,
                      .pad = D3(k.d[0] / 2, dilation * (k.d[1] / 2), dilation * (k.d[2] / 2)),
                      .dilation = D3(1, dilation, dilation)};
  md_val y = md_conv3d(b, x, w, MD_NONE, &a);
  md_set_name(b, y, name);
  return y;
}

// running = 0.9 running + 0.1 batch; several groups are averaged; the variance is made unbiased.
static void track(md_builder *b, md_val state, md_val stat, double scale) {
  md_val mean = md_mean(b, stat, (md_dims){.n = 1, .d = {0}});  // [c]
  if (scale != 1) mean = md_affine(b, mean, scale, 0);
  md_attr a = {.f = {.value = BN_MOMENTUM}};
  md_update_state(b, state, md_add_node(b, MD_OP_lerp, (md_val[]){state, mean}, 2, &a));
}

static md_val batch_norm(Net *n, md_val x, const char *name, bool zero) {
  md_builder *b = n->b;
  int64_t c = channels(b, x), groups = n->o->bn_groups ? n->o->bn_groups : 1;
  md_type type = type_of(1, &c);
  md_state_attr ones = {.init = MD_INIT_ones}, zeros = {.init = MD_INIT_zeros};
  int mark = md_scope_push(b, "%s", name);
  md_val gamma = declare(b, n->o, "g", type, zero ? zeros : ones, true);
  md_val beta = declare(b, n->o, "b", type, zeros, true);
  bool running = !n->o->train || n->o->track;
  md_val run_mean = running ? declare(b, n->o, "mean", type, zeros, false) : MD_NONE;
  md_val run_var = running ? declare(b, n->o, "var", type, ones, false) : MD_NONE;
  md_scope_pop(b, mark);
  if (!n->o->train) {
    md_shape row = {.rank = 2, .dim = {1, c}};
    return md_batch_norm(b, x, gamma, beta, md_reshape(b, run_mean, row),
                         md_reshape(b, run_var, row), BN_EPS, false);
  }
  md_val mean = md_moments(b, x, groups), var = md_result_of(b, mean, 1);  // [g,c] each
  if (running) {
    md_shape s = md_shape_of(b, x);
    double count = s.rank ? (double)(md_elements(&s) / (c * groups)) : 2;
    track(b, run_mean, mean, 1);
    track(b, run_var, var, count > 1 ? count / (count - 1) : 1);
  }
  return md_batch_norm(b, x, gamma, beta, mean, var, BN_EPS, true);
}

static md_val conv_bn(Net *n, md_val x, const char *name, const char *bn, int64_t out, md_dim3 k,
                      md_dim3 stride, int64_t dilation, bool zero) {
  return batch_norm(n, conv(n, x, name, out, k, stride, dilation), bn, zero);
}

static md_val block(Net *n, md_val x, int stage, bool first) {
  const md_net *net = n->net;
  int64_t width = net->width[stage], kt = net->kernel_t[stage];
  int64_t ss = first ? MD_MAX(net->stride_s[stage], 1) : 1;
  int64_t st = first ? MD_MAX(net->stride_t[stage], 1) : 1;
  int64_t dil = stage == 3 ? MD_MAX(net->res5_dilation, 1) : 1,
          out = width * (net->bottleneck ? 4 : 1);
  bool zero = n->o->zero_init;
  md_builder *b = n->b;
  md_val y;
  if (net->bottleneck) {
    y = conv_bn(n, x, "a", "a_bn", width, D3(kt, 1, 1), D3(st, 1, 1), 1, false);
    y = conv_bn(n, md_relu(b, y), "b", "b_bn", width, D3(1, 3, 3), D3(1, ss, ss), dil, false);
    y = conv_bn(n, md_relu(b, y), "c", "c_bn", out, D3(1, 1, 1), D3(1, 1, 1), 1, zero);
  } else {
    int64_t kb = net->both_temporal ? kt : 1;
    y = conv_bn(n, x, "a", "a_bn", width, D3(kt, 3, 3), D3(st, ss, ss), dil, false);
    y = conv_bn(n, md_relu(b, y), "b", "b_bn", width, D3(kb, 3, 3), D3(1, 1, 1), dil, zero);
  }
  if (channels(b, x) != out || ss != 1 || st != 1)
    x = conv_bn(n, x, "proj", "proj_bn", out, D3(1, 1, 1), D3(st, ss, ss), 1, false);
  return md_relu(b, md_add(b, y, x));
}

// [n,c,t,h,w] -> [n,c*t,1,h,w]
static md_val stack_frames(md_builder *b, md_val x) {
  md_shape s = md_shape_of(b, x);
  if (s.rank != 5) return MD_NONE;
  md_shape to = {.rank = 5, .dim = {s.dim[0], s.dim[1] * s.dim[2], 1, s.dim[3], s.dim[4]}};
  return md_reshape(b, x, to);
}

md_val md_net_trunk(md_builder *b, const md_net *net, const char *prefix, const md_net_options *o,
                    md_val x) {
  Net n = {.b = b, .o = o, .net = net};
  int top = md_scope_push(b, "%s", prefix);
  if (net->stacked) x = stack_frames(b, x);

  int mark = md_scope_push(b, "s1");
  x = conv_bn(&n, x, "conv1", "bn", net->stem_width, net->stem_kernel, net->stem_stride, 1, false);
  x = md_relu(b, x);
  if (net->pool) {
    md_pool3d_attr a = {.kernel = D3(1, 3, 3), .stride = D3(1, 2, 2), .pad = D3(0, 1, 1)};
    x = md_max_pool3d(b, x, &a);
  }
  md_scope_pop(b, mark);
  if (o->stage) o->stage[0] = x;

  for (int stage = 0; stage < 4; stage++) {
    for (int i = 0; i < net->blocks[stage]; i++) {
      mark = md_scope_push(b, "s%d.b%d", stage + 2, i);
      x = block(&n, x, stage, i == 0);
      md_scope_pop(b, mark);
    }
    if (o->stage) o->stage[stage + 1] = x;
  }
  md_val features = md_mean(b, x, (md_dims){.n = 3, .d = {2, 3, 4}});  // [n,f]
  if (o->stage) o->stage[5] = features;
  md_scope_pop(b, top);
  return features;
}

md_val md_linear(md_builder *b, const md_net_options *o, const char *name, int64_t out, md_val x) {
  int64_t in = channels(b, x);
  md_state_attr init = o->hash_init
                           ? (md_state_attr){.init = MD_INIT_uniform, .b = sqrt(3.0 / (double)in)}
                           : (md_state_attr){.init = MD_INIT_normal, .b = 0.01};
  md_state_attr zeros = {.init = MD_INIT_zeros};
  int mark = md_scope_push(b, "%s", name);
  md_val w = declare(b, o, "w", type_of(2, (int64_t[]){out, in}), init, true);
  md_val bias = declare(b, o, "b", type_of(1, &out), zeros, true);
  md_scope_pop(b, mark);
  md_val y = md_matmul(b, x, w, false, true);  // [n,out]
  return md_add(b, y, md_broadcast(b, bias, md_shape_of(b, y), (md_dims){.n = 1, .d = {1}}));
}

md_val md_net_head(md_builder *b, const md_net *net, const char *prefix, const md_net_options *o,
                   md_val features) {
  if (net->head == MD_HEAD_NONE) return features;
  int top = md_scope_push(b, "%s.head", prefix);
  md_val x = features;
  if (net->head == MD_HEAD_MLP) {
    int64_t hidden = net->hidden ? net->hidden : md_net_features(net);
    x = md_relu(b, md_linear(b, o, "fc1", hidden, x));
  }
  x = md_linear(b, o, net->head == MD_HEAD_MLP ? "fc2" : "fc", net->embed, x);
  md_scope_pop(b, top);
  return x;
}

md_net_size md_net_measure(const md_net *net, int64_t frames, int64_t size, bool with_head) {
  if (!frames) frames = net->frames;
  if (!size) size = net->size;
  md_graph *g = md_graph_create(net->name);
  md_builder b;
  md_builder_init(&b, g, NULL);
  md_params params = {0};
  md_net_options o = {.params = &params};
  int64_t dim[5] = {1, net->in_channels, frames, size, size};
  md_val f = md_net_trunk(&b, net, "v", &o, md_input(&b, "x", type_of(5, dim)));
  if (with_head) md_net_head(&b, net, "v", &o, f);
  md_net_size total = {0};
  for (int i = 0; i < params.num; i++) {
    md_shape s = md_shape_of(&b, params.item[i].val);
    total.params += md_elements(&s);
  }
  for (int i = 0; i < g->num_nodes; i++) {
    md_cost c;
    if (g->node[i]->op != MD_OP_conv3d && g->node[i]->op != MD_OP_matmul) continue;
    md_node_cost(g, g->node[i], &c);
    total.macs += (int64_t)(c.flops / 2);
  }
  free(params.item);
  md_graph_destroy(g);
  return total;
}
