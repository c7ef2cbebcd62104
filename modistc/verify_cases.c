// SPDX-License-Identifier: Apache-2.0
// Cases of single ops: each function writes one op of the golden set as a graph, with the roles of
// the manifest as inputs and results.
#include "modistc/verify_golden.h"

#include <math.h>
#include <string.h>

static md_dims axes(int64_t n, int64_t a, int64_t b, int64_t c) { return (md_dims){n, {a, b, c}}; }

static md_val node(md_case *c, md_op op, int n, const md_val *in, md_attr attr) {
  return md_add_node(&c->b, op, in, n, &attr);
}

static md_shape shape_of(const md_case *c, md_val v) { return md_shape_of(&c->b, v); }

static md_val constant(md_case *c, md_dtype d, md_shape s, double value) {
  return md_constant(&c->b, (md_type){.dtype = d, .shape = s}, value);
}

// [c] along the channels of `like`.
static md_val along(md_case *c, md_val v, md_val like) {
  return md_broadcast(&c->b, v, shape_of(c, like), axes(1, 1, 0, 0));
}

// [.., h, w] as [.., 1, h, w] and back.
static md_val with_time(md_case *c, md_val v) {
  md_shape s = shape_of(c, v);
  if (s.rank != 4) return v;
  return md_reshape(&c->b, v, (md_shape){5, {s.dim[0], s.dim[1], 1, s.dim[2], s.dim[3]}});
}

static md_val without_time(md_case *c, md_val v) {
  md_shape s = shape_of(c, v);
  if (s.rank != 5) return v;
  return md_reshape(&c->b, v, (md_shape){4, {s.dim[0], s.dim[1], s.dim[3], s.dim[4]}});
}

// --- convolution, normalisation, pooling

static bool says_kernel(md_case *c) {
  md_dim3 k;
  const md_case_row *w = md_case_find(c, "w");
  if (!md_case_dim3(c, "kernel", 1, &k)) return false;
  const md_shape *s = w && w->value ? &w->value->type.shape : NULL;
  bool same = s && s->rank >= 4;
  for (int i = 0; same && i < 3; i++) {
    int axis = s->rank - 3 + i;
    same = k.d[i] == (axis > 1 ? s->dim[axis] : 1);
  }
  return same || md_error(c->diags, E0602, MD_NOWHERE, "%s: kernel is not the shape of w", c->name);
}

static bool conv_attr(md_case *c, md_conv3d_attr *a) {
  *a = (md_conv3d_attr){.dilation = D3(1, 1, 1)};
  bool dilated = md_tree_get(c->config, "dilation") != NULL;
  return says_kernel(c) && md_case_dim3(c, "stride", 1, &a->stride) &&
         md_case_dim3(c, "pad", 0, &a->pad) &&
         (!dilated || md_case_dim3(c, "dilation", 1, &a->dilation));
}

static bool run_conv(md_case *c) {
  md_conv3d_attr a;
  bool is_2d = !strcmp(c->op, "conv2d"), bias = md_case_has(c, "b");
  if (!conv_attr(c, &a) || !md_case_says(c, "bias", bias) || !md_case_sampled(c)) return false;
  md_val v[] = {md_case_input(c, "x"), md_case_input(c, "w"), MD_NONE};
  if (bias) v[2] = md_case_input(c, "b");
  md_val y = md_conv3d(&c->b, with_time(c, v[0]), with_time(c, v[1]), v[2], &a);
  if (is_2d) y = without_time(c, y);
  md_case_result(c, "y", y);
  md_case_gradients(c, y, bias ? 3 : 2, (const char *[]){"x", "w", "b"}, v);
  return md_case_run(c);
}

// Batch norm of x with gamma, beta and running statistics of the case. Training: results
// new_running_* too, and batch_* where the case asks for them.
static md_val batch_norm(md_case *c, md_val x, md_val gamma, md_val beta) {
  md_builder *b = &c->b;
  double eps = 0;
  bool train = false;
  md_attr momentum = {0};
  if (!md_case_bool(c, c->config, "train", &train) ||
      !md_case_positive(c, c->config, "eps", &eps) ||
      !md_case_float(c, c->config, "momentum", &momentum.f.value)) {
    b->failed = true;
    return MD_NONE;
  }
  md_val mean = md_case_input(c, "running_mean"), var = md_case_input(c, "running_var");
  md_shape flat = shape_of(c, mean), row = {2, {1, flat.dim[0]}}, xs = shape_of(c, x);
  if (!train)
    return md_batch_norm(b, x, gamma, beta, md_reshape(b, mean, row), md_reshape(b, var, row), eps,
                         false);
  md_val m = md_moments(b, x, 1), v = md_result_of(b, m, 1);
  md_val batch_mean = md_reshape(b, m, flat), batch_var = md_reshape(b, v, flat);
  if (md_case_has(c, "batch_mean")) md_case_result(c, "batch_mean", batch_mean);
  if (md_case_has(c, "batch_var")) md_case_result(c, "batch_var", batch_var);
  // The running variance takes the unbiased one.
  double count = xs.rank ? (double)(md_elements(&xs) / xs.dim[1]) : 2;
  md_val unbiased = md_affine(b, batch_var, count / (count - 1), 0);
  md_case_result(c, "new_running_mean",
                 node(c, MD_OP_lerp, 2, (md_val[]){mean, batch_mean}, momentum));
  md_case_result(c, "new_running_var", node(c, MD_OP_lerp, 2, (md_val[]){var, unbiased}, momentum));
  return md_batch_norm(b, x, gamma, beta, m, v, eps, true);
}

static bool run_batch_norm(md_case *c) {
  md_val v[] = {md_case_input(c, "x"), md_case_input(c, "gamma"), md_case_input(c, "beta")};
  md_val y = batch_norm(c, v[0], v[1], v[2]);
  md_case_result(c, "y", y);
  md_case_gradients(c, y, 3, (const char *[]){"x", "gamma", "beta"}, v);
  return md_case_run(c);
}

static bool run_conv_bn_relu(md_case *c) {
  md_conv3d_attr a;
  bool residual = md_case_has(c, "res");
  if (!conv_attr(c, &a) || !md_case_says(c, "residual", residual)) return false;
  md_val v[] = {md_case_input(c, "x"), md_case_input(c, "w"), md_case_input(c, "gamma"),
                md_case_input(c, "beta"), MD_NONE};
  md_val y = batch_norm(c, md_conv3d(&c->b, v[0], v[1], MD_NONE, &a), v[2], v[3]);
  if (residual) {
    v[4] = md_case_input(c, "res");
    y = md_add(&c->b, y, v[4]);
  }
  y = md_relu(&c->b, y);
  md_case_result(c, "y", y);
  md_case_gradients(c, y, residual ? 5 : 4, (const char *[]){"x", "w", "gamma", "beta", "res"}, v);
  return md_case_run(c);
}

static bool run_relu(md_case *c) {
  md_val x = md_case_input(c, "x"), y = md_relu(&c->b, x);
  md_case_result(c, "y", y);
  md_case_gradients(c, y, 1, (const char *[]){"x"}, &x);
  return md_case_run(c);
}

static bool run_max_pool(md_case *c) {
  md_pool3d_attr a;
  if (!md_case_dim3(c, "kernel", 1, &a.kernel) || !md_case_dim3(c, "stride", 1, &a.stride) ||
      !md_case_dim3(c, "pad", 0, &a.pad))
    return false;
  md_val x = md_case_input(c, "x"), y = md_max_pool3d(&c->b, x, &a);
  md_case_result(c, "y", y);
  md_case_result(c, "index", md_result_of(&c->b, y, 1));
  md_shape xs = shape_of(c, x), ys = shape_of(c, y);
  md_case_gradients(c, y, 1, (const char *[]){"x"}, &x);
  if (!md_case_run(c)) return false;
  md_tensor *index = md_case_output_of(c, "index")->value;  // PyTorch's are places in the plane
  for (int64_t i = 0; i < md_elements(&ys); i++)
    index->i[i] = md_pool_place(&a, &xs, &ys, i, index->i[i]);
  return true;
}

static bool run_avg_pool(md_case *c) {
  static const char *const kinds[] = {"global", "2x2", NULL};
  int kind = md_case_word(c, c->config, "kind", kinds);
  if (kind < 0) return false;
  md_val x = md_case_input(c, "x");
  md_pool3d_attr a = {.kernel = D3(1, 2, 2), .stride = D3(1, 2, 2)};
  md_val y = kind == 0 ? md_mean(&c->b, x, axes(3, 2, 3, 4))
                       : without_time(c, md_avg_pool3d(&c->b, with_time(c, x), &a));
  md_case_result(c, "y", y);
  md_case_gradients(c, y, 1, (const char *[]){"x"}, &x);
  return md_case_run(c);
}

// --- rows and losses

static bool run_linear(md_case *c) {
  bool bias = md_case_has(c, "b");
  if (!md_case_says(c, "bias", bias)) return false;
  md_val v[] = {md_case_input(c, "x"), md_case_input(c, "w"), MD_NONE};
  md_val y = md_matmul(&c->b, v[0], v[1], false, true);
  if (bias) {
    v[2] = md_case_input(c, "b");
    y = md_add(&c->b, y, along(c, v[2], y));
  }
  md_case_result(c, "y", y);
  md_case_gradients(c, y, bias ? 3 : 2, (const char *[]){"x", "w", "b"}, v);
  return md_case_run(c);
}

static bool run_l2norm(md_case *c) {
  double eps;
  if (!md_case_positive(c, c->config, "eps", &eps)) return false;
  md_val x = md_case_input(c, "x"), y = md_l2_normalize(&c->b, x, eps);
  md_case_result(c, "y", y);
  md_case_gradients(c, y, 1, (const char *[]){"x"}, &x);
  return md_case_run(c);
}

// -log(e^a / (e^a + sum of e^s)) = softplus(ln sum of e^s - a), as models/step.c declares it.
static bool run_info_nce(md_case *c) {
  md_builder *b = &c->b;
  md_attr tau = {0};
  if (!md_case_positive(c, c->config, "tau", &tau.f.value)) return false;
  md_val raw = md_case_input(c, "q_raw"), k = md_case_input(c, "k"),
         bank = md_case_input(c, "bank");
  md_val ids = md_case_input(c, "ids"), bank_ids = md_case_input(c, "bank_ids");
  md_val q = md_l2_normalize(b, raw, 1e-12);
  md_val s = md_matmul(b, q, bank, false, true);
  md_val z = node(c, MD_OP_nce_mask, 3, (md_val[]){s, ids, bank_ids}, tau);
  md_val lse = md_add_node(b, MD_OP_logsumexp, &z, 1, NULL);
  md_val a = md_affine(b, md_sum(b, md_mul(b, q, k), axes(1, 1, 0, 0)), 1 / tau.f.value, 0);
  md_val d = md_sub(b, lse, a);
  md_val each = md_add_node(b, MD_OP_softplus, &d, 1, NULL), loss = md_mean(b, each, (md_dims){0});
  // The mask by itself: masked zeros are below any finite number.
  md_val zero = constant(c, MD_F32, shape_of(c, s), 0);
  md_val low = constant(c, MD_F32, shape_of(c, s), -1e30);
  md_val masked = node(c, MD_OP_nce_mask, 3, (md_val[]){zero, ids, bank_ids}, tau);
  md_val mask = md_add_node(b, MD_OP_less, (md_val[]){masked, low}, 2, NULL);
  md_case_result(c, "mask", md_cast(b, mask, MD_U8));
  md_case_result(c, "q", q);
  md_case_result(c, "loss_per_sample", each);
  md_case_result(c, "loss", loss);
  md_val grad = md_gradient(b, loss, (md_val[]){raw, q, k}, 3);
  md_case_result(c, "dq_raw", grad);
  md_case_result(c, "dq", md_result_of(b, grad, 1));
  md_case_result(c, "dk", md_result_of(b, grad, 2));
  return md_case_run(c);
}

static bool run_cross_entropy(md_case *c) {
  md_builder *b = &c->b;
  md_val x = md_case_input(c, "logits"), labels = md_case_input(c, "labels");
  md_val each = md_add_node(b, MD_OP_cross_entropy, (md_val[]){x, labels}, 2, NULL);
  md_val loss = md_mean(b, each, (md_dims){0});
  md_case_result(c, "loss", loss);
  md_case_result(c, "dlogits", md_gradient(b, loss, &x, 1));
  md_case_result(c, "softmax", md_add_node(b, MD_OP_softmax, &x, 1, NULL));
  return md_case_run(c);
}

static bool run_bce(md_case *c) {
  static const char *const reductions[] = {"mean over all elements", NULL};
  md_builder *b = &c->b;
  if (md_case_word(c, c->config, "reduction", reductions) < 0) return false;
  md_val x = md_case_input(c, "logits"), t = md_case_input(c, "targets");
  md_val loss = md_mean(b, md_add_node(b, MD_OP_bce, (md_val[]){x, t}, 2, NULL), (md_dims){0});
  md_case_result(c, "loss", loss);
  md_case_result(c, "dlogits", md_gradient(b, loss, &x, 1));
  md_case_result(c, "sigmoid", md_add_node(b, MD_OP_sigmoid, &x, 1, NULL));
  return md_case_run(c);
}

static bool run_average_views(md_case *c) {
  int64_t views;
  if (!md_case_int(c, c->config, "views", &views)) return false;
  md_val x = md_case_input(c, "logits");
  md_shape s = shape_of(c, x);
  md_val p = md_add_node(&c->b, MD_OP_softmax, &x, 1, NULL);
  p = md_reshape(&c->b, p, (md_shape){3, {s.dim[0] / MD_MAX(views, 1), views, s.dim[1]}});
  md_case_result(c, "scores", md_mean(&c->b, p, axes(1, 1, 0, 0)));
  return md_case_run(c);
}

// --- updates

// All steps in one graph, one after another; the learning rates are the case's own.
static bool run_sgd(md_case *c) {
  md_attr a = {0};
  const md_tree *rates = md_case_rates(c);
  if (!rates || !md_case_float(c, c->config, "momentum", &a.sgd.momentum) ||
      !md_case_float(c, c->config, "weight_decay", &a.sgd.weight_decay))
    return false;
  md_val p = md_case_input(c, "p"), buf = constant(c, MD_F32, shape_of(c, p), 0);
  for (int t = 0; t < rates->num; t++) {
    double lr = 0;
    md_tree_float(&rates->item[t], &lr);
    md_val rate = constant(c, MD_F32, shape_of(c, p), lr);
    md_val g = md_case_input(c, md_format(c->arena, "g%d", t));
    p = node(c, MD_OP_sgd, 4, (md_val[]){p, g, buf, rate}, a);
    buf = md_result_of(&c->b, p, 1);
    md_case_result(c, md_format(c->arena, "p%d", t + 1), p);
    md_case_result(c, md_format(c->arena, "buf%d", t + 1), buf);
  }
  return md_case_run(c);
}

static bool run_ema(md_case *c) {
  double lambda;
  if (!md_case_float(c, c->config, "lambda", &lambda)) return false;
  md_val v[] = {md_case_input(c, "slow"), md_case_input(c, "fast")};
  md_case_result(c, "new", node(c, MD_OP_lerp, 2, v, (md_attr){.f.value = 1 - lambda}));
  return md_case_run(c);
}

static bool run_bank_push(md_case *c) {
  md_builder *b = &c->b;
  int64_t n, start;
  if (!md_case_int(c, c->config, "n", &n) || !md_case_int(c, c->config, "start_ptr", &start))
    return false;
  md_val keys = md_case_input(c, "keys"), ids = md_case_input(c, "ids");
  md_shape s = shape_of(c, keys), one = {1, {1}};
  if (s.rank != 3) return md_error(c->diags, E0602, MD_NOWHERE, "%s: keys have no 3 axes", c->name);
  md_shape rows = {2, {s.dim[1], s.dim[2]}}, row_ids = {1, {s.dim[1]}};
  md_val bank = constant(c, MD_F32, (md_shape){2, {n, s.dim[2]}}, 0);
  md_val bank_ids = constant(c, MD_I64, (md_shape){1, {n}}, -2);
  md_val ptr = constant(c, MD_I64, one, (double)start);
  for (int64_t t = 0; t < s.dim[0]; t++) {
    md_val k = md_reshape(b, md_slice(b, keys, 0, t, 1), rows);
    md_val i = md_reshape(b, md_slice(b, ids, 0, t, 1), row_ids);
    bank = md_add_node(b, MD_OP_bank_push, (md_val[]){bank, k, ptr}, 3, NULL);
    bank_ids = md_add_node(b, MD_OP_bank_push, (md_val[]){bank_ids, i, ptr}, 3, NULL);
    ptr = node(c, MD_OP_ring_next, 1, &ptr, (md_attr){.word = {s.dim[1], n}});
  }
  md_case_result(c, "feats", bank);
  md_case_result(c, "bank_ids", bank_ids);
  md_case_result(c, "ptr", ptr);
  return md_case_run(c);
}

// --- pictures

static bool run_resize(md_case *c) {
  static const char *const modes[] = {"bilinear", "trilinear", NULL};  // of 2 and 3 axes
  md_attr a = {0};
  const md_tree *out = md_case_attr(c, c->config, "out");
  bool align;
  int mode = md_case_word(c, c->config, "mode", modes);
  if (mode < 0 || !md_case_bool(c, c->config, "align_corners", &align)) return false;
  a.resize.align_corners = align;
  bool fits = out && out->kind == MD_JSON_LIST && out->num == 2 + mode;
  for (int i = 0; fits && i < out->num; i++) fits = md_tree_int(&out->item[i], &a.resize.size.d[i]);
  if (!fits)
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: out is not a size of %d axes", c->name,
                    2 + mode);
  a.resize.size.n = out->num;
  md_val x = md_case_input(c, "x");
  md_case_result(c, "y", node(c, MD_OP_resize, 1, &x, a));
  return md_case_run(c);
}

static bool run_frame_difference(md_case *c) {
  md_val x = md_case_input(c, "x");
  md_case_result(c, "abs", node(c, MD_OP_frame_difference, 1, &x, (md_attr){0}));
  md_case_result(c, "signed", node(c, MD_OP_frame_difference, 1, &x, (md_attr){.i.value = 1}));
  return md_case_run(c);
}

static md_val gray(md_case *c, md_val x) {
  return node(c, MD_OP_grayscale, 1, &x, (md_attr){.real = {0.2989, 0.587, 0.114}});
}

// clamp(f a + (1 - f) b, 0, 1)
static md_val blend(md_case *c, md_val a, md_val b, double f) {
  md_val mixed = node(c, MD_OP_lerp, 2, (md_val[]){b, a}, (md_attr){.f.value = f});
  return node(c, MD_OP_clamp, 1, &mixed, (md_attr){.real = {0, 1}});
}

static md_val jitter(md_case *c, md_val x, const char *what, double f) {
  md_shape s = shape_of(c, x);
  if (!strcmp(what, "brightness")) return blend(c, x, constant(c, MD_F32, s, 0), f);
  if (!strcmp(what, "saturation")) return blend(c, x, gray(c, x), f);
  if (strcmp(what, "contrast") != 0) return MD_NONE;
  md_val mean = md_mean(&c->b, gray(c, x), axes(2, 3, 4, 0));  // of each frame
  return blend(c, x, md_broadcast(&c->b, mean, s, axes(3, 0, 1, 2)), f);
}

// One augmentation of x [1,3,t,h,w]; MD_NONE: not understood.
static md_val augment(md_case *c, md_val x, const char *op, const md_tree *arg) {
  md_attr crop = {0}, size = {.resize.size.n = 2}, flip = {.i.value = 4}, blur = {0};
  double sigma, f;
  bool antialias = false;
  if (!strcmp(op, "hflip")) return node(c, MD_OP_flip, 1, &x, flip);
  if (!strcmp(op, "grayscale")) return gray(c, x);
  if (!strcmp(op, "normalize")) return md_affine(&c->b, x, 1 / 0.225, -0.45 / 0.225);
  if (!strcmp(op, "gaussian_blur")) {
    if (!md_case_int(c, arg, "size", &blur.blur.size) || !md_case_float(c, arg, "sigma", &sigma))
      return MD_NONE;
    md_val in[] = {x, constant(c, MD_F32, (md_shape){1, {1}}, sigma)};
    return node(c, MD_OP_gaussian_blur, 2, in, blur);
  }
  if (!strcmp(op, "crop_resize")) {
    if (!md_case_int(c, arg, "top", &crop.crop.top) ||
        !md_case_int(c, arg, "left", &crop.crop.left) || !md_case_int(c, arg, "h", &crop.crop.h) ||
        !md_case_int(c, arg, "w", &crop.crop.w) ||
        !md_case_int(c, arg, "out_h", &size.resize.size.d[0]) ||
        !md_case_int(c, arg, "out_w", &size.resize.size.d[1]))
      return MD_NONE;
    if (md_tree_get(arg, "antialias") && !md_case_bool(c, arg, "antialias", &antialias))
      return MD_NONE;
    size.resize.antialias = antialias;
    x = node(c, MD_OP_crop, 1, &x, crop);
    return node(c, MD_OP_resize, 1, &x, size);
  }
  if (!strcmp(op, "color_jitter")) {
    const md_tree *order = md_case_attr(c, arg, "order"),
                  *factors = md_case_attr(c, arg, "factors");
    if (!order || order->kind != MD_JSON_LIST) return MD_NONE;
    for (int i = 0; i < order->num && x != MD_NONE; i++) {
      const char *what = md_tree_str(&order->item[i]);
      if (!what || !md_case_float(c, factors, what, &f)) return MD_NONE;
      x = jitter(c, x, what, f);
    }
    return x;
  }
  return MD_NONE;
}

static bool run_augment(md_case *c) {
  md_builder *b = &c->b;
  const md_tree *ops = md_case_attr(c, c->config, "ops");
  md_val clip = md_case_input(c, "clip");
  md_case_row *unused = md_case_find(c, "one");  // stands in every case, for the reference's sake
  if (unused) unused->used = true;
  md_shape s = shape_of(c, clip);
  if (s.rank != 4) return md_error(c->diags, E0602, MD_NOWHERE, "%s: no clip [3,t,h,w]", c->name);
  md_val x = md_reshape(b, clip, (md_shape){5, {1, s.dim[0], s.dim[1], s.dim[2], s.dim[3]}});
  x = md_affine(b, md_cast(b, x, MD_F32), 1.0 / 255, 0);
  for (int i = 0; ops && i < ops->num; i++) {
    const md_tree *pair = &ops->item[i];
    bool is_pair = pair->kind == MD_JSON_LIST && pair->num == 2;
    const char *op =
        is_pair && pair->item[1].kind == MD_JSON_MAP ? md_tree_str(&pair->item[0]) : NULL;
    x = op ? augment(c, x, op, &pair->item[1]) : MD_NONE;
    if (x == MD_NONE)
      return md_error(c->diags, E0602, MD_NOWHERE, "%s: augmentation %d is not understood", c->name,
                      i);
    md_shape now = shape_of(c, x), out = {4, {now.dim[1], now.dim[2], now.dim[3], now.dim[4]}};
    md_case_result(c, md_format(c->arena, "after%d_%s", i, op), md_reshape(b, x, out));
  }
  return md_case_run(c);
}

const md_case_kind md_case_kinds[] = {
    {"conv3d", run_conv},
    {"conv2d", run_conv},
    {"batch_norm", run_batch_norm},
    {"conv_bn_relu", run_conv_bn_relu},
    {"relu", run_relu},
    {"max_pool3d", run_max_pool},
    {"avg_pool", run_avg_pool},
    {"linear", run_linear},
    {"l2norm", run_l2norm},
    {"info_nce", run_info_nce},
    {"cross_entropy", run_cross_entropy},
    {"bce_with_logits", run_bce},
    {"average_views", run_average_views},
    {"sgd_momentum", run_sgd},
    {"ema", run_ema},
    {"bank_push", run_bank_push},
    {"resize", run_resize},
    {"frame_difference", run_frame_difference},
    {"augment", run_augment},
    {"net", md_run_net},
    {"classifier", md_run_classifier},
    {"modist_train", md_run_train},
};
const int md_num_case_kinds = MD_COUNT(md_case_kinds);
