// SPDX-License-Identifier: Apache-2.0
// Cases of networks. They are built by models/, so what is judged is what trains. The set names
// parameters as the reference does ("res2.0.bn1.weight"), models/ as the paper ("s2.b0.a_bn.g").
#include "modistc/verify_golden.h"

#include "models/models.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct renaming {
  const char *ours, *theirs;
} renaming;
static const renaming modules[] = {{"s1.conv1", "conv1"},    {"s1.bn", "bn1"},
                                   {"head.fc1", "proj.fc1"}, {"head.fc2", "proj.fc2"},
                                   {"head.fc", "proj.fc"},   {"fc", "fc"}};
static const renaming layers[] = {{"a", "conv1"},   {"a_bn", "bn1"},       {"b", "conv2"},
                                  {"b_bn", "bn2"},  {"c", "conv3"},        {"c_bn", "bn3"},
                                  {"proj", "down"}, {"proj_bn", "down_bn"}};
static const renaming leaves[] = {{"w", "weight"},
                                  {"g", "weight"},
                                  {"b", "bias"},
                                  {"mean", "running_mean"},
                                  {"var", "running_var"}};

static const char *renamed(const renaming *r, int n, const char *ours, size_t len) {
  for (int i = 0; i < n; i++)
    if (strlen(r[i].ours) == len && !strncmp(r[i].ours, ours, len)) return r[i].theirs;
  return NULL;
}

// The reference's name of a state: "s2.b0.a_bn.g" is "res2.0.bn1.weight". NULL: it has none.
static const char *their_name(md_case *c, const char *ours) {
  const char *dot = strrchr(ours, '.');
  int stage, block, used = 0;
  if (!dot) return NULL;
  const char *leaf = renamed(leaves, MD_COUNT(leaves), dot + 1, strlen(dot + 1));
  const char *module = renamed(modules, MD_COUNT(modules), ours, (size_t)(dot - ours));
  if (leaf && module) return md_format(c->arena, "%s.%s", module, leaf);
  if (!leaf || sscanf(ours, "s%d.b%d.%n", &stage, &block, &used) != 2 || !used) return NULL;
  module = renamed(layers, MD_COUNT(layers), ours + used, (size_t)(dot - ours) - (size_t)used);
  return module ? md_format(c->arena, "res%d.%d.%s.%s", stage, block, module, leaf) : NULL;
}

// "v.s1.bn.g" with prefix "v." is "bn1.weight".
static const char *their_name_in(md_case *c, const char *ours, const char *prefix) {
  size_t len = strlen(prefix);
  return strncmp(ours, prefix, len) != 0 ? NULL : their_name(c, ours + len);
}

static bool is_statistic(const char *theirs) { return strstr(theirs, ".running_") != NULL; }

// --- a network from its attributes

static bool read_list(md_case *c, const md_tree *map, const char *key, int n, int *out) {
  const md_tree *list = md_case_attr(c, map, key);
  bool ok = list && list->kind == MD_JSON_LIST && list->num == n;
  for (int i = 0; ok && i < n; i++) {
    ok = list->item[i].kind == MD_JSON_INT && llabs(list->item[i].i) < 1 << 20;
    out[i] = (int)list->item[i].i;
  }
  return ok || md_error(c->diags, E0602, MD_NOWHERE, "%s: %s is not a list of %d integers", c->name,
                        key, n);
}

static bool read_small(md_case *c, const md_tree *map, const char *key, int *out) {
  int64_t x = 0;
  if (!md_case_int(c, map, key, &x)) return false;
  if (x < 0 || x > 1 << 20)
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: %s is out of range", c->name, key);
  *out = (int)x;
  return true;
}

static bool read_net(md_case *c, const md_tree *from, md_net *net) {
  static const char *const blocks[] = {"basic", "bottleneck", NULL};
  static const char *const heads[] = {"none", "linear", "mlp", NULL};
  static const md_head head_of[] = {MD_HEAD_NONE, MD_HEAD_LINEAR, MD_HEAD_MLP};
  int kernel[3], stride[3];
  md_case_attr(c, from, "name");  // for people
  int block = md_case_word(c, from, "block", blocks), head = md_case_word(c, from, "head", heads);
  if (block < 0 || head < 0) return false;
  *net = (md_net){.name = "golden",
                  .doc = "",
                  .bottleneck = block == 1,
                  .both_temporal = true,
                  .head = head_of[head]};
  if (!md_case_bool(c, from, "pool", &net->pool) ||
      !read_small(c, from, "in_ch", &net->in_channels) ||
      !read_small(c, from, "stem_ch", &net->stem_width) ||
      !read_small(c, from, "embed", &net->embed) ||
      !read_small(c, from, "head_hidden", &net->hidden) ||
      !read_small(c, from, "res5_dilation", &net->res5_dilation) ||
      !read_list(c, from, "stem_kernel", 3, kernel) ||
      !read_list(c, from, "stem_stride", 3, stride) ||
      !read_list(c, from, "blocks", 4, net->blocks) ||
      !read_list(c, from, "widths", 4, net->width) ||
      !read_list(c, from, "t_kernels", 4, net->kernel_t) ||
      !read_list(c, from, "s_strides", 4, net->stride_s) ||
      !read_list(c, from, "t_strides", 4, net->stride_t))
    return false;
  net->stem_kernel = D3(kernel[0], kernel[1], kernel[2]);
  net->stem_stride = D3(stride[0], stride[1], stride[2]);
  return true;
}

// --- states

// Scale and centre of a generated parameter: the set's rule by name and shape.
static void generated_range(const char *theirs, const md_shape *s, float *scale, float *center) {
  const char *leaf = strrchr(theirs, '.') + 1;
  double fan_in = 1;
  for (int i = 1; i < s->rank; i++) fan_in *= (double)s->dim[i];
  *center = 0;
  *scale = 0.1f;
  if (!strcmp(leaf, "running_mean") || !strcmp(leaf, "bias")) return;
  if (!strcmp(leaf, "running_var") || s->rank == 1) {
    bool last = strstr(theirs, ".bn3.weight") != NULL;
    *scale = last ? 0.1f : 0.25f;
    *center = last ? 0.25f : 1;
    return;
  }
  *scale = (float)sqrt((s->rank > 2 ? 6.0 : 3.0) / fan_in);
}

static bool read_init(md_case *c, const char **prefix, int64_t *seed) {
  const md_tree *init = md_case_attr(c, c->config, "param_init");
  *prefix = md_tree_str(md_case_attr(c, init, "hashrand_prefix"));
  return *prefix && md_case_int(c, init, "seed", seed);
}

static bool put_generated(md_case *c, const md_case_state *s, const char *theirs) {
  const char *prefix;
  int64_t seed;
  float scale, center;
  if (!read_init(c, &prefix, &seed))
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: no values for %s", c->name, theirs);
  generated_range(theirs, &s->type.shape, &scale, &center);
  uint64_t key = md_hash_key(md_format(c->arena, "%s%s", prefix, theirs), (uint64_t)seed);
  md_tensor *t = md_tensor_create(s->type);
  if (!t) md_out_of_memory((size_t)md_type_bytes(&s->type));
  int64_t n = md_elements(&s->type.shape);
  for (int64_t i = 0; i < n; i++) {
    float scaled = (float)md_hash_unit(key, (uint64_t)i) * scale;
    t->f[i] = (double)(center + scaled);
  }
  bool ok = md_case_put(c, s->name, t);
  md_tensor_destroy(t);
  return ok;
}

// States `prefix`* take the rows `param/<theirs>`*, or generated values where the case has no rows.
static bool put_states(md_case *c, const char *prefix, const char *theirs) {
  for (int i = 0; i < c->num_states; i++) {
    const md_case_state *s = &c->state[i];
    const char *name = their_name_in(c, s->name, prefix);
    if (!name) continue;
    md_case_row *row = md_case_find(c, md_format(c->arena, "param/%s%s", theirs, name));
    if (row) row->used = true;
    if (!(row ? md_case_put(c, s->name, row->value) : put_generated(c, s, name))) return false;
  }
  return true;
}

// --- one forward and backward pass

static void return_gradients(md_case *c, md_val loss, const md_params *p, const char *prefix,
                             const char *theirs) {
  md_builder *b = &c->b;
  md_val *wrt = MD_NEW_ARRAY(c->arena, md_val, p->num);
  for (int i = 0; i < p->num; i++) wrt[i] = p->item[i].val;
  md_val d = md_gradient(b, loss, wrt, p->num);
  for (int i = 0; i < p->num && !b->failed; i++) {
    const char *name = their_name_in(c, p->item[i].name, prefix);
    const char *role = name ? md_format(c->arena, "grad/%s%s", theirs, name)
                            : md_format(c->arena, "grad/%s", their_name(c, p->item[i].name));
    md_case_result(c, role, md_result_of(b, d, i));
  }
}

// Running statistics as the step left them.
static bool take_statistics(md_case *c, const char *prefix) {
  for (int i = 0; i < c->num_states; i++) {
    const md_case_state *s = &c->state[i];
    const char *name = their_name_in(c, s->name, prefix);
    if (name && is_statistic(name) &&
        !md_case_take(c, md_format(c->arena, "stats/%s", name), s->name, s->type))
      return false;
  }
  return true;
}

bool md_run_net(md_case *c) {
  static const char *const stages[] = {"stage/stem", "stage/res2", "stage/res3",
                                       "stage/res4", "stage/res5", "stage/pooled"};
  static const char *const modes[] = {"eval", "train", NULL};
  md_net net;
  const char *prefix;
  int64_t seed;
  int mode = md_case_word(c, c->config, "mode", modes);
  if (mode < 0 || !md_case_sampled(c) || !read_net(c, md_case_attr(c, c->config, "net"), &net))
    return false;
  // Where rows hold the parameters, this tells how they were made.
  if (md_tree_get(c->config, "param_init") && !read_init(c, &prefix, &seed)) return false;
  bool train = mode == 1, backward = train || md_case_has(c, "loss");
  md_params params = {0};
  md_val stage[6];
  md_net_options o = {.train = train, .track = true, .params = &params, .stage = stage};
  md_val x = md_case_input(c, "x"), f = md_net_trunk(&c->b, &net, "n", &o, x);
  md_val e = md_net_head(&c->b, &net, "n", &o, f);
  for (int i = 0; i < 6; i++) md_case_result(c, stages[i], stage[i]);
  md_case_result(c, "stage/embed", e);
  md_case_row *gy = md_case_find(c, "gy");
  if (gy) gy->used = true;
  if (backward) {
    md_val loss = md_sum(&c->b, md_mul(&c->b, e, md_case_input(c, "gy")), (md_dims){0});
    md_case_result(c, "loss", loss);
    return_gradients(c, loss, &params, "n.", "");
  }
  free(params.item);
  return md_case_start(c, NULL) && put_states(c, "n.", "") && md_case_step(c) && md_case_fetch(c) &&
         (!train || take_statistics(c, "n."));
}

bool md_run_classifier(md_case *c) {
  md_net net;
  int64_t classes;
  static const char *const modes[] = {"train, no dropout", NULL};
  if (md_case_word(c, c->config, "mode", modes) < 0 ||
      !read_net(c, md_case_attr(c, c->config, "net"), &net) ||
      !md_case_int(c, c->config, "classes", &classes))
    return false;
  md_builder *b = &c->b;
  md_params params = {0};
  md_net_options o = {.train = true, .track = true, .params = &params};
  md_val f = md_net_trunk(b, &net, "n", &o, md_case_input(c, "x"));
  md_val logits = md_linear(b, &o, "fc", classes, f), labels = md_case_input(c, "labels");
  md_val each = md_add_node(b, MD_OP_cross_entropy, (md_val[]){logits, labels}, 2, NULL);
  md_val loss = md_mean(b, each, (md_dims){0});
  md_case_result(c, "logits", logits);
  md_case_result(c, "loss", loss);
  return_gradients(c, loss, &params, "n.", "net.");
  free(params.item);
  return md_case_start(c, NULL) && put_states(c, "n.", "net.") && put_states(c, "", "") &&
         md_case_step(c) && md_case_fetch(c);
}

// --- training runs

// The terms of the loss; each is a word of the paper.
static bool read_terms(md_case *c, md_step *s) {
  const md_tree *list = md_case_attr(c, c->config, "terms");
  bool ok = list && list->kind == MD_JSON_LIST;
  for (int i = 0; ok && i < list->num; i++) {
    const char *term = md_tree_str(&list->item[i]);
    if (term && !strcmp(term, "v")) s->w_v = 1;
    else if (term && !strcmp(term, "m")) s->w_m = 1;
    else if (term && !strcmp(term, "mv")) s->w_mv = 1;
    else ok = false;
  }
  return ok || md_error(c->diags, E0602, MD_NOWHERE, "%s: terms are not of v, m and mv", c->name);
}

// What the rows losses/T hold, in the order of take_losses.
static bool says_columns(md_case *c) {
  static const char *const names[] = {"v", "m", "mv_vq_mk", "mv_mq_vk", "total"};
  const md_tree *list =
      md_case_attr(c, c->config, "losses_columns (losses/T, before the update of step T)");
  bool same = list && list->num == MD_COUNT(names);
  for (int i = 0; same && i < MD_COUNT(names); i++) {
    const char *name = md_tree_str(&list->item[i]);
    same = name && !strcmp(name, names[i]);
  }
  return same || md_error(c->diags, E0602, MD_NOWHERE, "%s: columns of the losses are not %s",
                          c->name, "v, m, mv_vq_mk, mv_mq_vk, total");
}

static bool read_clip(md_case *c, const char *role, md_clip *clip) {
  const md_case_row *row = md_case_find(c, role);
  const int64_t *dim = row && row->value ? row->value->type.shape.dim : NULL;
  if (!dim || row->value->type.shape.rank != 5 || dim[3] != dim[4])
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: %s is not a square clip", c->name, role);
  *clip = (md_clip){.frames = dim[2], .size = dim[3]};
  return true;
}

static bool read_step(md_case *c, md_step *s) {
  const md_tree *config = c->config;
  *s = (md_step){.mode = MD_MODE_MODIST, .bn_groups = 1, .raw_inputs = true, .track_keys = true};
  return read_terms(c, s) && says_columns(c) &&
         md_case_bool(c, config, "decay_norm_bias", &s->decay_1d) &&
         read_net(c, md_case_attr(c, config, "visual"), &s->visual) &&
         read_net(c, md_case_attr(c, config, "motion"), &s->motion) &&
         read_clip(c, "batch0/vq", &s->clip) && read_clip(c, "batch0/mq", &s->mclip) &&
         md_case_int(c, config, "batch", &s->batch) && md_case_int(c, config, "bank", &s->bank) &&
         md_case_float(c, config, "momentum", &s->momentum) &&
         md_case_float(c, config, "weight_decay", &s->weight_decay) &&
         md_case_positive(c, config, "tau", &s->tau) && md_case_float(c, config, "lam", &s->ema);
}

// The embeddings are named values of the step, made results here.
static void return_embeddings(md_graph *g, md_diags *d) {
  static const char *const names[][2] = {{"v", "vq"}, {"vk", "vk"}, {"m", "mq"}, {"mk", "mk"}};
  md_builder b;
  md_builder_init(&b, g, d);
  md_val num = (md_val)g->num_values;
  for (md_val v = 1; v <= num; v++) {
    const md_value *value = &g->value[v];
    if (!value->name || value->node->op == MD_OP_input)
      continue;  // clips are called vq, vk, ... too
    for (int i = 0; i < MD_COUNT(names); i++)
      if (!strcmp(value->name, names[i][0])) md_return(&b, names[i][1], v);
  }
}

static const md_case_state *find_state(const md_case *c, const char *name) {
  for (int i = 0; i < c->num_states; i++)
    if (!strcmp(c->state[i].name, name)) return &c->state[i];
  return NULL;
}

static bool put_row(md_case *c, const char *state, const char *role) {
  md_case_row *row = md_case_find(c, role);
  if (!row || !row->value)
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: input %s is missing", c->name, role);
  row->used = true;
  return md_case_put(c, state, row->value);
}

// Key networks start as copies; there is one row of ids for both banks.
static bool put_first(md_case *c) {
  return put_states(c, "v.", "v/") && put_states(c, "vk.", "v/") && put_states(c, "m.", "m/") &&
         put_states(c, "mk.", "m/") && put_row(c, "bank.v", "bank/v") &&
         put_row(c, "bank.m", "bank/m") && put_row(c, "bank.ids", "bank_ids/m") &&
         put_row(c, "bank.ids", "bank_ids/v");
}

static bool put_batch(md_case *c, int t, const md_tree *rates) {
  static const char *const names[] = {"vq", "vk", "mq", "mk", "ids"};
  double lr;
  for (int i = 0; i < MD_COUNT(names); i++)
    if (!put_row(c, names[i], md_format(c->arena, "batch%d/%s", t, names[i]))) return false;
  if (t >= rates->num || !md_tree_float(&rates->item[t], &lr))
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: no learning rate of step %d", c->name, t);
  md_tensor *rate = md_tensor_create((md_type){.dtype = MD_F32, .shape = {1, {1}}});
  if (!rate) md_out_of_memory(sizeof *rate);
  rate->f[0] = lr;
  bool ok = md_case_put(c, "lr", rate);
  md_tensor_destroy(rate);
  return ok;
}

// An output that is put together here.
static md_tensor *new_output(md_case *c, const char *role, md_type type) {
  md_case_output y = {.role = role, .name = role, .value = md_tensor_create(type)};
  if (!y.value) md_out_of_memory((size_t)md_type_bytes(&type));
  MD_PUSH(c->output, c->num_outputs, c->cap_outputs, y);
  return y.value;
}

// Query and bank row are of one video, or the row is empty.
static bool count_masked(md_case *c, int t, md_tensor *masked) {
  const md_case_state *s = find_state(c, "bank.ids");
  const md_case_row *ids = md_case_find(c, md_format(c->arena, "batch%d/ids", t));
  md_tensor *bank = md_tensor_create(s->type);
  if (!bank) md_out_of_memory((size_t)md_type_bytes(&s->type));
  bool ok = c->backend->get(c->run, s->name, bank);
  for (int64_t i = 0; ok && i < md_elements(&ids->value->type.shape); i++)
    for (int64_t j = 0; j < md_elements(&bank->type.shape); j++)
      masked->i[t] += bank->i[j] == ids->value->i[i] || bank->i[j] == -2;
  md_tensor_destroy(bank);
  return ok;
}

static bool take_losses(md_case *c, int t) {
  static const char *const names[] = {"loss_v", "loss_m", "loss_vm", "loss_mv", "loss"};
  md_type one = {.dtype = MD_F32, .shape = {1, {1}}}, five = {.dtype = MD_F32, .shape = {1, {5}}};
  md_tensor *losses = new_output(c, md_format(c->arena, "losses/%d", t), five);
  md_tensor *x = md_tensor_create(one);
  if (!x) md_out_of_memory(sizeof *x);
  bool ok = true;
  for (int i = 0; i < 5 && ok; i++) {
    ok = c->backend->get(c->run, names[i], x) ||
         md_error(c->diags, E0602, MD_NOWHERE, "%s: no result %s", c->name, names[i]);
    losses->f[i] = x->f[0];
  }
  md_tensor_destroy(x);
  return ok;
}

// Parameters and momentum of one network. The momentum starts at 0, so after one step it is
// gradient + decay * parameter. A parameter that the loss does not reach has none, which is 0.
static bool take_network(md_case *c, const char *prefix, const md_step *s, bool first) {
  for (int i = 0; i < c->num_states; i++) {
    const md_case_state *p = &c->state[i];
    const char *name = their_name_in(c, p->name, prefix);
    if (!name) continue;
    int len = (int)strlen(prefix) - 1;  // without the dot
    const char *role = md_format(c->arena, "final/%.*s/%s", len, prefix, name);
    const char *momentum = md_format(c->arena, "sgd.%s", p->name);
    if (first) role = md_format(c->arena, "after_step0/%s%s", prefix, name);
    if (!md_case_take(c, role, p->name, p->type)) return false;
    if (is_statistic(name) || prefix[1] == 'k') continue;
    bool has_momentum = find_state(c, momentum) != NULL;
    role = md_format(c->arena, "final/momentum/%s%s", prefix, name);
    if (first) role = md_format(c->arena, "step0/grad/%s%s", prefix, name);
    if (!has_momentum) {
      new_output(c, role, p->type);
      continue;
    }
    md_case_output *y = md_case_take(c, role, momentum, p->type);
    if (!y) return false;
    const md_case_row *was =
        md_case_find(c, md_format(c->arena, "param/%.*s/%s", len, prefix, name));
    double decay = s->decay_1d || p->type.shape.rank > 1 ? s->weight_decay : 0;
    for (int64_t k = 0; first && was && k < md_elements(&p->type.shape); k++)
      y->value->f[k] -= decay * was->value->f[k];
  }
  return true;
}

static bool take_first(md_case *c, const md_step *s) {
  static const char *const names[] = {"vq", "mq", "vk", "mk"};
  md_type type = {.dtype = MD_F32, .shape = {2, {s->batch, s->visual.embed}}};
  for (int i = 0; i < MD_COUNT(names); i++)
    if (!md_case_take(c, md_format(c->arena, "step0/%s", names[i]), names[i], type)) return false;
  return take_network(c, "v.", s, true) && take_network(c, "m.", s, true);
}

static bool take_bank(md_case *c, const char *side) {
  static const char *const names[][2] = {
      {"bank", NULL}, {"bank_ids", "bank.ids"}, {"ptr", "bank.ptr"}};
  for (int i = 0; i < 3; i++) {
    const char *name = names[i][1] ? names[i][1] : md_format(c->arena, "bank.%s", side);
    const md_case_state *s = find_state(c, name);
    if (!s ||
        !md_case_take(c, md_format(c->arena, "final/%s/%s", names[i][0], side), name, s->type))
      return false;
  }
  return true;
}

bool md_run_train(md_case *c) {
  md_step s;
  int64_t steps;
  const md_tree *rates = md_case_rates(c);
  if (!rates || !read_step(c, &s) || !md_case_int(c, c->config, "steps", &steps)) return false;
  md_graph *g = md_step_graph(&s, c->diags);
  if (!g) return false;
  return_embeddings(g, c->diags);
  if (!md_case_start(c, g) || !put_first(c)) return false;
  md_type counts = {.dtype = MD_I64, .shape = {1, {MD_MAX(steps, 1)}}};
  md_tensor *masked = new_output(c, "masked_pairs", counts);
  for (int t = 0; t < (int)steps; t++) {
    if (!put_batch(c, t, rates) || !count_masked(c, t, masked) || !md_case_step(c) ||
        !take_losses(c, t) || (t == 0 && !take_first(c, &s)))
      return false;
  }
  return take_network(c, "v.", &s, false) && take_network(c, "m.", &s, false) &&
         take_network(c, "vk.", &s, false) && take_network(c, "mk.", &s, false) &&
         take_bank(c, "v") && take_bank(c, "m");
}
