// SPDX-License-Identifier: Apache-2.0
// conv3d and its gradient for the source. Weights are brought into the order of the terms first. Then
// blocks make tiles of pixels by channels; where sums are wanted a block makes several and keeps theirs.
#include "codegen/cuda/conv.h"

typedef md_cu_convolution Conv;
typedef md_cu_product Kernel;

static md_cu_pack pack_of(const Conv *c, const md_cu_map *a) {
  return (md_cu_pack){.weights = c->n->in[1],
                      .backward = c->backward,
                      .in = c->in,
                      .out = c->out,
                      .rows = md_round_up(c->out, c->tile.n),
                      .narrow = c->tile.narrow,
                      .tile = c->tile.swizzled ? c->tile.n : 0,
                      .map = *a};
}

int64_t md_cu_columns(const Conv *c) { return md_ceil_div(c->out, c->tile.n); }

int64_t md_cu_pixels(const Conv *c, const md_cu_map *a) {
  return md_cu_map_places(a) * (c->samples / c->groups);
}

// --- a source that is stored while it is read

// At a pixel's own tap (md_conv3d_own_tap) the blocks of a column of tiles read each element once.
md_val md_cu_formed(const md_region_view *r) {
  const md_node *n = r->anchor;
  int64_t tap[3];
  if (!n || !md_conv3d_own_tap(r->g, n, tap)) return MD_NONE;
  const md_node *maker = md_inner(r, n->in[0]);
  const md_type *t = md_type_in(r->g, n->in[0]);
  bool wanted = maker && md_is_output(r, n->in[0]) && md_ops[maker->op].role == MD_POINTWISE;
  bool vector = t->block > 0 && t->block % MD_CU_LANES == 0;
  // Other columns of tiles still read what it is made from.
  return wanted && vector && !md_is_over_input(r, n->in[0]) ? n->in[0] : MD_NONE;
}

// --- the product

// In shared memory: two tiles of each operand, over them later the result's; then sums and tables.
// Weights of at most two steps stay there: the result's tile lies over the source's alone.
static bool weights_stay(const Conv *c) {
  const int64_t *kernel = md_type_in(c->w->r->g, c->n->in[1])->shape.dim + 2;
  int64_t taps = kernel[0] * kernel[1] * kernel[2];
  return taps * md_round_up(c->in, MD_CU_LANES) <= 2 * MD_CU_STEP;
}

static int weights_at(const Conv *c) {
  int source = 2 * md_cu_tile_bytes(&c->tile, c->tile.m);
  return weights_stay(c) ? MD_MAX(source, md_cu_finish_bytes(&c->finish, &c->tile)) : source;
}

static int tiles_bytes(const Conv *c) {
  int operands = weights_at(c) + 2 * md_cu_tile_bytes(&c->tile, c->tile.n);
  return MD_MAX(operands, md_cu_finish_bytes(&c->finish, &c->tile));
}

static void put_shared(Kernel *p) {
  const Conv *c = p->c;
  md_cu_kernel *k = &p->k;
  const char *cell = md_cu_cell(&c->tile);
  int at = tiles_bytes(c);
  md_cu_line(k, NULL, "MD_SHARED(shared);");
  md_cu_line(k, "two tiles of the source", "%s *const as = (%s *)shared;", cell, cell);
  md_cu_line(k, "and two of the weights", "%s *const bs = (%s *)(shared + %d);", cell, cell,
             weights_at(c));
  if (c->finish.num_sums)
    md_cu_line(k, "[sum][column]", "double *const sums = (double *)(shared + %d);", at);
  at += md_cu_sums_bytes(&c->finish, &c->tile);
  if (p->source.lanes.num_slots)
    md_cu_line(k, NULL, "float *const atable = (float *)(shared + %d);", at);
  at += md_cu_table_bytes(&p->source.lanes);
  if (c->finish.lanes.num_slots)
    md_cu_line(k, NULL, "float *const etable = (float *)(shared + %d);", at);
  k->shared_bytes = at + md_cu_table_bytes(&c->finish.lanes);
  md_cu_put_table(k, &p->source.lanes);
  md_cu_put_table(k, &c->finish.lanes);
  md_cu_put_sums(k, &c->finish, &c->tile);
  md_cu_line(k, NULL, "md_sync();");
}

// The line's pixel.
static void put_pixel(Kernel *p, const char *first) {
  md_cu_kernel *k = &p->k;
  md_cu_line(k, NULL, "const int p = %s + line;", first);
  if (p->source.by_pixel) {
    md_cu_line(k, NULL, "ap[i] = sample0 * %lld + p;", (long long)md_cu_map_places(&p->a));
    if (p->c->groups > 1)
      md_cu_line(k, NULL, "an[i] = sample0 + p / %lld;", (long long)md_cu_map_places(&p->a));
    return;
  }
  md_cu_put_place(k, &p->a, "p", "sample0");
  md_cu_line(k, NULL, "an[i] = sample;");
}

static md_cu_ix from(Kernel *p, int axis) {
  md_cu_ix q = md_format(p->k.w->arena, "q%d", axis);
  const md_cu_axis_map *m = &p->a.axis[axis];
  return md_cu_linear(&p->k, 1, &q, &m->from_q, m->from0);
}

// A copied source of several taps lies where the row's first tap does, and `tap` elements on.
static bool adds_tap(const Kernel *p) { return p->source.copied && !p->source.by_pixel; }

// Then a word tells at which taps, if they are so few, there is a pixel.
static bool has_mask(const Kernel *p) { return adds_tap(p) && md_cu_map_taps(&p->a) <= 32; }

static void put_row_place(Kernel *p) {
  const md_type *t = md_type_in(p->k.w->r->g, p->source.copied);
  md_cu_spot s = {.shape = &t->shape, .at = {"sample", "0", from(p, 0), from(p, 1), from(p, 2)}};
  md_cu_line(&p->k, NULL, "from[i] = %s + %s;", md_cu_pointer(&p->k, p->source.copied, false),
             md_cu_offset(&p->k, t, &s));
}

static void put_tap_place(Kernel *p) {
  const md_type *t = md_type_in(p->k.w->r->g, p->source.copied);
  md_cu_spot s = {.shape = &t->shape, .at = {"0", p->source.lanes.first}};
  for (int x = 0; x < 3; x++) {
    md_cu_ix tap = md_format(p->k.w->arena, "am%d", x);
    s.at[2 + x] = md_cu_linear(&p->k, 1, &tap, &p->a.axis[x].from_m, 0);
  }
  md_cu_line(&p->k, NULL, "const %s tap = %s;", md_cu_index_type(&p->k),
             md_cu_offset(&p->k, t, &s));
}

void md_cu_declare_rows(Kernel *p) {
  int rows = md_cu_side_rows(&p->source);
  md_cu_side_declare(&p->k, &p->source);
  if (has_mask(p)) md_cu_line(&p->k, "taps inside the source", "md_u32 taps[%d];", rows);
  else if (!p->source.by_pixel) md_cu_line(&p->k, NULL, "int base[%d][3];", rows);
  if (adds_tap(p)) md_cu_line(&p->k, NULL, "const md_bf16 *from[%d];", rows);
}

// Taps on an axis that lie inside, then those of all three.
static void put_mask(Kernel *p) {
  md_cu_kernel *k = &p->k;
  const md_cu_axis_map *a = p->a.axis;
  for (int x = 0; x < 3; x++) {
    md_cu_line(k, NULL, "md_u32 in%d = 0;", x);
    md_cu_line(k, NULL, "MD_UNROLL");
    md_cu_line(k, NULL, "for (int m = 0; m < %lld; m++)", (long long)a[x].taps);
    md_cu_line(k, NULL,
               "  in%d |= (md_u32)(base%d + m * %lld >= 0 && base%d + m * %lld < %lld) << m;", x, x,
               (long long)a[x].from_m, x, (long long)a[x].from_m, (long long)a[x].size);
  }
  md_cu_line(k, NULL, "taps[i] = 0;");
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_line(k, NULL, "for (int m = 0; m < %lld; m++)", (long long)(a[0].taps * a[1].taps));
  md_cu_line(k, NULL, "  taps[i] |= in0 >> m / %lld & in1 >> m %% %lld & 1 ? in2 << m * %lld : 0;",
             (long long)MD_MAX(a[1].taps, 1), (long long)MD_MAX(a[1].taps, 1),
             (long long)a[2].taps);
}

// Far away where there is no pixel.
void md_cu_set_rows(Kernel *p, const char *first, const char *places) {
  md_cu_kernel *k = &p->k;
  md_cu_mark m = md_cu_side_open(k, &p->source);
  put_pixel(p, first);
  if (p->source.by_pixel) md_cu_line(k, NULL, "if (p >= %s) ap[i] = -1;", places);
  for (int x = 0; !p->source.by_pixel && x < 3; x++) {
    const char *far = x ? "" : md_format(k->w->arena, "p >= %s ? -(1 << 28) : ", places);
    md_cu_line(k, NULL, has_mask(p) ? "const int base%d = %s%s;" : "base[i][%d] = %s%s;", x, far,
               from(p, x));
  }
  if (has_mask(p)) put_mask(p);
  if (adds_tap(p)) put_row_place(p);
  md_cu_close(k, m);
}

static const char *buffer(Kernel *p, const char *base, int rows, const char *which) {
  const md_cu_tile *t = &p->c->tile;
  int cells = md_cu_tile_bytes(t, rows) / (t->narrow ? 2 : 4);
  return md_format(p->k.w->arena, "%s + %s * %d", base, which, cells);
}

// Weights stay as they are: they go past the registers.
static void put_weights(Kernel *p) {
  md_cu_kernel *k = &p->k;
  const md_cu_tile *t = &p->c->tile;
  int rows = MD_MAX(t->n * MD_CU_STEP_CHUNKS / MD_CU_THREADS, 1);
  const char *all =
      md_cu_workspace(k, p->weights, md_cu_pack_bytes(&p->pack), md_cu_cell(t), false);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int i = 0; i < %d; i++) {", rows);
  md_cu_line(k, NULL, "const int line = md_thread() / %d + i * %d;", MD_CU_STEP_CHUNKS,
             MD_CU_THREADS / MD_CU_STEP_CHUNKS);
  bool some = t->n * MD_CU_STEP_CHUNKS < MD_CU_THREADS;
  md_cu_mark in = {0};
  if (some) in = md_cu_open(k, NULL, "if (line < %d) {", t->n);
  md_cu_line(k, NULL,
             "const %s *const from = %s + (n0 + line) * %lld + next * %d + md_thread() %% %d * 8;",
             md_cu_cell(t), all, (long long)(p->steps * MD_CU_STEP), MD_CU_STEP, MD_CU_STEP_CHUNKS);
  md_cu_line(k, NULL, "%s *const to = %s + line * %d + md_thread() %% %d * 8;", md_cu_cell(t),
             buffer(p, "bs", t->n, "next % 2"), md_cu_pitch(t, t->n), MD_CU_STEP_CHUNKS);
  md_cu_line(k, NULL, "md_cp_async(to, from, 16);");
  if (!t->narrow) md_cu_line(k, NULL, "md_cp_async(to + 4, from + 4, 16);");
  if (some) md_cu_close(k, in);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_cp_commit();");
}

void md_cu_put_chunk(Kernel *p, const char *next) {
  md_cu_put_tap_of_step(&p->k, &p->source, &p->a, p->c->in, next);
}

void md_cu_put_source(Kernel *p, const char *next, const char *to) {
  md_cu_kernel *k = &p->k;
  md_cu_put_chunk(p, next);
  if (adds_tap(p)) put_tap_place(p);
  md_cu_mark m = md_cu_side_open(k, &p->source);
  for (int x = 0; !p->source.by_pixel && !has_mask(p) && x < 3; x++)
    md_cu_line(k, NULL, "a%c[i] = base[i][%d] + am%d * %lld;", md_cu_axis_letters[x], x, x,
               (long long)p->a.axis[x].from_m);
  if (has_mask(p)) md_cu_line(k, NULL, "ain[i] = aok && (taps[i] >> am & 1);");
  else md_cu_put_inside(k, &p->source, &p->a, p->source.by_pixel ? "ap[i] >= 0" : NULL);
  if (p->source.copied) md_cu_side_copy(k, &p->source, to, adds_tap(p) ? "from[i] + tap" : NULL);
  else md_cu_side_load(k, &p->source);
  md_cu_close(k, m);
}

void md_cu_put_source_of_tile(Kernel *p, const char *places, const char *next) {
  md_cu_kernel *k = &p->k;
  md_cu_put_chunk(p, next);
  md_cu_mark m = md_cu_side_open(k, &p->source);
  put_pixel(p, "m0");
  for (int x = 0; !p->source.by_pixel && x < 3; x++)
    md_cu_line(k, NULL, "a%c[i] = %s + am%d * %lld;", md_cu_axis_letters[x], from(p, x), x,
               (long long)p->a.axis[x].from_m);
  md_cu_put_inside(k, &p->source, &p->a, md_format(k->w->arena, "p < %s", places));
  md_cu_side_load(k, &p->source);
  md_cu_close(k, m);
}

static void put_all_weights(Kernel *p) {
  md_cu_kernel *k = &p->k;
  md_cu_mark m =
      md_cu_open(k, NULL, "for (int next = 0; next < %lld; next++) {", (long long)p->steps);
  put_weights(p);
  md_cu_close(k, m);
}

// The next step's tiles are on their way while the current ones are multiplied. What the first one takes
// of the source is in registers already.
static void put_steps(Kernel *p) {
  md_cu_kernel *k = &p->k;
  const md_cu_tile *t = &p->c->tile;
  if (!p->steps) return;
  md_cu_mark loop =
      md_cu_open(k, NULL, "for (int step = -1; step < %lld; step++) {", (long long)p->steps);
  md_cu_line(k, NULL, "const int next = step + 1;");
  md_cu_mark m = md_cu_open(k, NULL, "if (next < %lld) {", (long long)p->steps);
  if (p->steps > 1) {
    md_cu_mark later = md_cu_open(k, NULL, "if (next > 0) {");
    md_cu_put_source(p, "next", NULL);
    md_cu_close(k, later);
  }
  if (!weights_stay(p->c)) put_weights(p);
  md_cu_close(k, m);
  m = md_cu_open(k, NULL, "if (step >= 0) {");
  md_cu_line(k, NULL, "const %s *const a = %s;", md_cu_cell(t), buffer(p, "as", t->m, "step % 2"));
  md_cu_line(k, NULL, "const %s *const b = %s;", md_cu_cell(t), buffer(p, "bs", t->n, "step % 2"));
  md_cu_put_product(k, t, "a", "b");
  md_cu_close(k, m);
  m = md_cu_open(k, NULL, "if (next < %lld) {", (long long)p->steps);
  md_cu_side_store(k, &p->source, buffer(p, "as", t->m, "next % 2"));
  md_cu_line(k, NULL, "md_cp_wait(0);");
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_sync();");
  md_cu_close(k, loop);
}

void md_cu_put_part(Kernel *p) {
  const Conv *c = p->c;
  const char *part = "part";
  if (p->part0) part = md_format(c->w->arena, "part + %s", md_cu_count(&p->k, "part0", p->part0));
  md_cu_put_parts(&p->k, &c->finish, &c->tile, part);
}

md_cu_side md_cu_source_of(const Conv *c, md_cu_kernel *k) {
  bool apart = c->tile.swizzled;
  md_cu_side form = {.tile = &c->tile,
                     .lines = c->tile.m,
                     .chunks = md_cu_step(&c->tile) / MD_CU_LANES,
                     .thread = apart ? "(md_thread() & 255)" : "md_thread()",
                     .sets = apart ? 2 : 1,
                     .in_place = apart,
                     .by_pixel = apart && c->by_pixel};
  return md_cu_side_of(k, "a", c->n->in[0], &form, c->groups, c->finish.no_table);
}

void md_cu_put_block(md_cu_kernel *k, int64_t columns, int width, int64_t parts, int64_t samples,
                     int64_t groups) {
  md_cu_line(k, "first column of the tile", "const int n0 = md_block() %% %lld * %d;",
             (long long)columns, width);
  if (groups == 1) {
    md_cu_line(k, NULL, "const int part = md_block() / %lld;", (long long)columns);
    md_cu_line(k, NULL, "const int group = 0, sample0 = 0;");
    return;
  }
  const char *turns = md_cu_count(k, "turns", parts);
  md_cu_line(k, NULL, "const int part = md_block() / %lld %% %s;", (long long)columns, turns);
  md_cu_line(k, NULL, "const int group = md_block() / %lld / %s;", (long long)columns, turns);
  md_cu_line(k, NULL, "const int sample0 = group * %s;",
             md_cu_count(k, "samples", samples / groups));
}

// A block makes one tile, or goes on to another so many pixels further.
static md_cu_mark open_tiles(Kernel *p, const char *count) {
  md_cu_kernel *k = &p->k;
  if (p->c->blocks)
    return md_cu_open(k, NULL, "for (int m0 = part * %d; m0 < %s; m0 += %s) {", p->c->tile.m, count,
                      md_cu_count(k, "stride", p->parts * p->c->tile.m));
  md_cu_mark m = md_cu_open(k, NULL, "{");
  md_cu_line(k, NULL, "const int m0 = part * %d;", p->c->tile.m);
  return m;
}

// Of the tile that begins with pixel `first`; if there is one.
static void put_first_source(Kernel *p, const char *first, bool is_there, const char *places) {
  if (!p->steps) return;
  md_cu_mark m = is_there ? md_cu_open(&p->k, NULL, "{")
                          : md_cu_open(&p->k, NULL, "if (%s < %s) {", first, places);
  md_cu_set_rows(p, first, places);
  md_cu_put_source(p, "0", NULL);
  md_cu_close(&p->k, m);
}

static void put_product(Kernel *p) {
  const Conv *c = p->c;
  md_cu_kernel *k = &p->k;
  put_shared(p);
  const char *count = md_cu_count(k, "pixels", md_cu_pixels(c, &p->a));
  md_cu_put_block(k, md_cu_columns(c), c->tile.n, p->parts, c->samples, c->groups);
  if (p->steps) md_cu_declare_rows(p);
  if (p->steps && weights_stay(c)) put_all_weights(p);
  put_first_source(p, md_format(k->w->arena, "part * %d", c->tile.m), true, count);
  md_cu_mark loop = open_tiles(p, count);
  md_cu_put_accumulators(k, &c->tile);
  put_steps(p);
  if (c->blocks) put_first_source(p, "m0 + stride", false, count);
  md_cu_put_finish(k, &c->finish, &c->tile, &p->a, count);
  md_cu_line(k, NULL, "md_sync();");
  md_cu_close(k, loop);
  md_cu_put_part(p);
}

// Where the source is stored: by the first column of tiles, at the pixel's own tap.
static const char *stored_if(const Conv *c) {
  int64_t tap[3];
  md_conv3d_own_tap(c->w->r->g, c->n, tap);
  return md_format(c->w->arena, "n0 == 0 && am0 == %lld && am1 == %lld && am2 == %lld",
                   (long long)tap[0], (long long)tap[1], (long long)tap[2]);
}

static void product(Conv *c, const md_cu_map *a, int64_t weights, int64_t parts, int64_t part0) {
  Kernel p = {.c = c, .a = *a, .weights = weights, .parts = parts, .part0 = part0};
  p.pack = pack_of(c, a);
  p.steps = md_cu_pack_steps(&p.pack);
  md_cu_kernel *k = &p.k;
  md_cu_begin(k, c->w, c->backward ? "gradient for the source" : "convolution");
  k->is_beside = part0 > 0;
  if (p.steps) p.source = md_cu_source_of(c, k);
  if (c->formed && p.steps) p.source.stored_if = stored_if(c);
  md_cu_finish_texts(k, &c->finish);
  if (c->tile.swizzled) md_cu_wgmma(&p);
  else put_product(&p);
  md_cu_lanes_free(&p.source.lanes);
  md_cu_lanes_free(&c->finish.lanes);
  k->work = (double)md_cu_pixels(c, a) * (double)md_cu_map_taps(a);
  md_cu_end(k, md_cu_columns(c) * parts * c->groups);
}

// --- the tile

md_cu_needs md_cu_measure(Conv *c) {
  md_cu_kernel k;
  md_cu_begin(&k, c->w, "to be measured");
  md_cu_side source = md_cu_source_of(c, &k);
  md_cu_finish_texts(&k, &c->finish);
  md_cu_needs needs = {.tables =
                           md_cu_table_bytes(&source.lanes) + md_cu_table_bytes(&c->finish.lanes),
                       .words = md_cu_vector_words(&source.lanes),
                       .is_copied = source.copied};
  for (int i = 0; i < c->num_maps; i++)
    needs.has_windows |= md_cu_source_windows(c, &source, &c->map[i]) != NULL;
  md_cu_lanes_free(&source.lanes);
  md_cu_lanes_free(&c->finish.lanes);
  return needs;
}

static bool has_room(Conv *c) {
  return tiles_bytes(c) + md_cu_sums_bytes(&c->finish, &c->tile) + md_cu_measure(c).tables <=
         md_cu_shared_limit(c->w);
}

// Many channels have large tables, which leave room for fewer columns; at last they are not made.
static void choose_tile(Conv *c) {
  for (int i = 0; i < 2; i++) {
    c->finish.no_table = i == 1;
    for (int64_t columns = c->out;; columns = c->tile.n / 2) {
      c->tile = md_cu_tile_of(c->narrow ? 128 : 64, columns, c->narrow, false);
      if (has_room(c)) return;
      if (c->tile.n <= MD_CU_LANES) break;
    }
  }
}

// --- ways to make it

static md_cuda_schedule own_schedule(Conv *c) {
  int n = MD_CU_WGMMA_LEAST;
  while (n < c->out && n < 256) n *= 2;
  for (; c->narrow && n >= MD_CU_WGMMA_LEAST; n /= 2)
    if (md_cu_wgmma_tile(c, n, c->map, c->num_maps))
      return md_cu_way(MD_CUDA_WGMMA, c->tile.m, n, MD_CU_WGMMA_BLOCKS);
  choose_tile(c);
  return md_cu_way(c->narrow ? MD_CUDA_MMA : MD_CUDA_FMA, c->tile.m, c->tile.n,
                   c->finish.num_sums ? MD_CU_SUM_BLOCKS : 0);
}

// False: it cannot be made so.
static bool take(Conv *c, const md_cuda_schedule *s) {
  c->blocks = s->blocks;
  c->stages = s->stages;
  c->copies = s->copies;
  if (s->math == MD_CUDA_WGMMA) return md_cu_wgmma_tile(c, s->n, c->map, c->num_maps);
  for (int i = 0; i < 2; i++) {
    c->finish.no_table = i == 1;
    c->tile = md_cu_tile_sized(s->m, s->n, c->narrow, false);
    if (has_room(c)) return true;
  }
  return false;
}

// What is likely to be good comes first.
static void list_ways(Conv *c, md_cuda_schedule own, md_cu_ways *ways) {
  static const int wgmma_blocks[] = {MD_CU_WGMMA_BLOCKS, MD_CU_WGMMA_BLOCKS / 2,
                                     2 * MD_CU_WGMMA_BLOCKS};
  static const int sum_blocks[] = {MD_CU_SUM_BLOCKS, MD_CU_SUM_BLOCKS / 2, 2 * MD_CU_SUM_BLOCKS};
  md_cu_add_way(ways, own);
  for (int n = 256; c->narrow && n >= MD_CU_WGMMA_LEAST; n /= 2) {
    for (int i = 0; n < 2 * c->out && i < MD_COUNT(wgmma_blocks); i++) {
      md_cuda_schedule s = md_cu_way(MD_CUDA_WGMMA, MD_CU_WGMMA_PIXELS, n, wgmma_blocks[i]);
      if (take(c, &s)) md_cu_add_way(ways, s);
    }
    if (own.math == MD_CUDA_WGMMA && own.n == n && take(c, &own)) {
      md_cu_add_stages(ways, own, md_cu_wgmma_stages(c));
      if (md_cu_measure(c).has_windows) md_cu_add_copies(ways, own);
    }
  }
  int most = c->narrow ? 128 : 64;
  for (int n = most; n >= MD_CU_LANES && ways->num < MD_CUDA_WAYS; n /= 2) {
    for (int m = most; n < 2 * c->out && m >= most / 2; m /= 2) {
      for (int i = 0; i < (c->finish.num_sums ? MD_COUNT(sum_blocks) : 1); i++) {
        md_cuda_schedule s = md_cu_way(c->narrow ? MD_CUDA_MMA : MD_CUDA_FMA, m, n,
                                       c->finish.num_sums ? sum_blocks[i] : 0);
        if (take(c, &s)) md_cu_add_way(ways, s);
      }
    }
  }
}

// --- all kernels

static int64_t parts_of(const Conv *c, const md_cu_map *a) {
  int64_t tiles = md_ceil_div(md_cu_pixels(c, a), c->tile.m);
  if (!c->blocks) return tiles;
  return MD_MIN(tiles, MD_MAX(c->blocks / (md_cu_columns(c) * c->groups), 1));
}

static int maps_of(const Conv *c, md_cu_map *to) {
  const md_region_view *r = c->w->r;
  if (!c->backward) {
    to[0] = md_cu_map_forward(r, c->n);
    return 1;
  }
  int num = 0;
  const int64_t *s = c->residues;
  for (int64_t t = 0; t < s[0]; t++)
    for (int64_t h = 0; h < s[1]; h++)
      for (int64_t w = 0; w < s[2]; w++)
        num += md_cu_map_backward(r, c->n, (int64_t[3]){t, h, w}, &to[num]);
  return num;
}

void md_cu_conv(md_cu_work *w, const md_node *n) {
  if (w->r->twin && md_cu_twins(w)) return;
  const md_graph *g = w->r->g;
  const md_shape *src = &md_type_in(g, n->in[0])->shape, *dst = &md_type_in(g, n->out)->shape;
  Conv c = {.w = w,
            .n = n,
            .backward = n->op == MD_OP_conv3d_dgrad,
            .in = src->dim[1],
            .out = dst->dim[1],
            .samples = dst->dim[0],
            .groups = md_cu_groups(w->r),
            .formed = md_cu_formed(w->r)};
  c.narrow = md_cuda_multiplies_bf16(w->arch) && md_type_in(g, n->in[0])->dtype == MD_BF16;
  c.finish = md_cu_finish_of(w, n, c.groups);
  int64_t most = 1;
  for (int i = 0; i < 3; i++) {
    c.residues[i] = c.backward ? MD_MIN(n->attr.conv3d.stride.d[i], dst->dim[2 + i]) : 1;
    most *= c.residues[i];
  }
  md_cu_map *a = c.map = MD_NEW_ARRAY(w->arena, md_cu_map, most);
  int num = c.num_maps = maps_of(&c, a);
  c.by_pixel = num == 1 && md_cu_map_is_identity(&a[0]);
  c.finish.by_pixel = num == 1;
  md_cuda_schedule own = own_schedule(&c);
  if (w->ways) list_ways(&c, own, w->ways);
  bool can = take(&c, w->schedule ? w->schedule : &own);
  MD_ASSERT(can, "a schedule that is not among the ways");
  for (int i = 0; i < num; i++) c.parts += parts_of(&c, &a[i]);
  md_cu_finish_place(w, &c.finish, &c.tile, c.parts);
  if (c.formed) md_cu_place(w, c.formed);
  int64_t part0 = 0;
  for (int i = 0; i < num; i++) {
    md_cu_pack pack = pack_of(&c, &a[i]);
    int64_t weights = md_cu_reserve(w, md_cu_pack_bytes(&pack));
    md_cu_put_pack(w, &pack, weights);
    product(&c, &a[i], weights, parts_of(&c, &a[i]), part0);
    part0 += parts_of(&c, &a[i]);
  }
  if (c.formed) md_cu_ready(w, c.formed);
  md_cu_finish_ready(w, &c.finish);
  if (w->r->twin) md_cu_wgrad(w, w->r->twin);
}
