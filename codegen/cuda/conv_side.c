// SPDX-License-Identifier: Apache-2.0
// An operand of a convolution on its way into shared memory. A thread loads the vectors of the next
// step into registers while the current one is multiplied; then it applies what stands before the
// convolution and stores. Zeros around the source are put in after that. What lies in memory as it is to
// be multiplied goes past the registers where there is wgmma; so does what a value is made of, if that is one
// tensor: each thread makes the value of what it has copied, in its place.
#include "codegen/cuda/conv.h"

#include <string.h>

enum { MAX_SLOTS = 6 };

const char md_cu_axis_letters[3] = {'t', 'h', 'w'};

static int vectors(const md_cu_side *s) { return s->lines * s->chunks; }

int md_cu_side_rows(const md_cu_side *s) { return MD_MAX(vectors(s) / MD_CU_THREADS, 1); }

static const char *made(md_cu_kernel *k, const md_cu_side *s, const char *fmt) {
  return md_format(k->w->arena, fmt, s->p);
}

static bool is_plain(const md_cu_kernel *k, md_val v) {
  const md_type *t = md_type_in(k->w->r->g, v);
  bool lies = !md_inner(k->w->r, v) || md_cu_is_ready(k->w, v);
  return lies && t->dtype == MD_BF16 && md_cu_is_vector(t);
}

// Eight results are rounded at once: what is rounded before is not.
static md_val rounded_later(const md_cu_kernel *k, md_val v) {
  const md_region_view *r = k->w->r;
  const md_node *n = md_inner(r, v);
  bool casts = n && n->op == MD_OP_cast && !md_cu_is_ready(k->w, v) &&
               md_type_in(r->g, v)->dtype == MD_BF16 && md_type_in(r->g, n->in[0])->dtype == MD_F32;
  return casts ? n->in[0] : v;
}

static md_cu_spot spot_of(md_cu_kernel *k, const md_cu_side *s, md_cu_ix channel) {
  md_cu_spot spot = {.shape = &md_type_in(k->w->r->g, s->val)->shape};
  spot.at[1] = channel;
  if (s->by_pixel) {
    spot.pixel = made(k, s, "%sp[i]");
    return spot;
  }
  spot.at[0] = made(k, s, "%sn[i]");
  static const char *const axis[] = {"%st[i]", "%sh[i]", "%sw[i]"};
  for (int i = 0; i < 3; i++) spot.at[2 + i] = made(k, s, axis[i]);
  return spot;
}

static void make_texts(md_cu_kernel *k, md_cu_side *s, int64_t groups, bool no_table) {
  const md_shape *shape = &md_type_in(k->w->r->g, s->val)->shape;
  s->lanes = (md_cu_lanes){.channels = shape->dim[1],
                           .groups = groups,
                           .no_table = no_table,
                           .row = "[i]",
                           .first = made(k, s, s->sets > 1 ? "%sc[set]" : "%sc"),
                           .prefix = s->p};
  const char *of_row =
      md_format(k->w->arena, "(%sn[i] / %lld)", s->p, (long long)(shape->dim[0] / groups));
  s->lanes.group = groups == 1 ? "0" : s->in_place ? "group" : of_row;
  if (s->is_plain) return;
  md_cu_lanes_begin(k, &s->lanes);
  md_cu_spot spot = spot_of(k, s, MD_CU_CHANNEL);
  md_val v = s->tile->narrow ? rounded_later(k, s->val) : s->val;
  md_cu_line(k, NULL, "v.x[j] = %s;", md_cu_value_as(k, v, &spot, MD_CU_FLOAT));
  md_cu_lanes_end(k);
}

static bool names_row(const md_cu_side *s) {
  const char *code = s->lanes.lane.code.s;
  for (const char *c = "nthwp"; *c; c++) {
    char name[16];
    snprintf(name, sizeof name, "%s%c[i]", s->p, *c);
    if (strstr(code, name)) return true;
  }
  return false;
}

// What all depends on that a row decides, if that is one tensor of bf16 as it lies in memory.
static md_val made_of(md_cu_kernel *k, const md_cu_side *s) {
  const md_cu_lanes *l = &s->lanes;
  if (l->num_vectors != 1 || l->before.text.len || names_row(s)) return MD_NONE;
  const md_type *t = md_type_in(k->w->r->g, l->vector);
  md_cu_spot spot = spot_of(k, s, MD_CU_CHANNEL);
  bool same = md_shape_equal(&t->shape, spot.shape) && md_cu_spot_equal(&l->vector_at, &spot);
  return same && t->dtype == MD_BF16 ? l->vector : MD_NONE;
}

md_cu_side md_cu_side_of(md_cu_kernel *k, const char *p, md_val v, const md_cu_side *form,
                         int64_t groups, bool no_table) {
  md_cu_side s = *form;
  s.p = p;
  s.val = v;
  s.is_plain = form->tile->swizzled && !form->is_made && is_plain(k, v);
  s.in_place &= !s.is_plain;
  if (s.is_plain || s.in_place) s.sets = 1;
  make_texts(k, &s, groups, no_table);
  s.copied = s.is_plain ? v : s.in_place ? made_of(k, &s) : MD_NONE;
  if (s.copied || !s.in_place) return s;
  s.in_place = false;
  s.sets = form->sets;
  md_cu_lanes_free(&s.lanes);
  make_texts(k, &s, groups, no_table);
  return s;
}

void md_cu_side_declare(md_cu_kernel *k, const md_cu_side *s) {
  int rows = md_cu_side_rows(s) * s->sets;
  const char *p = s->p;
  md_cu_line(k, NULL, "%s %sn[%d] = {0};", md_cu_index_type(k), p, rows);
  if (s->by_pixel) md_cu_line(k, NULL, "%s %sp[%d] = {0};", md_cu_index_type(k), p, rows);
  else
    md_cu_line(k, NULL, "int %st[%d] = {0}, %sh[%d] = {0}, %sw[%d] = {0};", p, rows, p, rows, p,
               rows);
  const char *sets = s->sets > 1 ? md_format(k->w->arena, "[%d] = {0}", s->sets) : " = 0";
  md_cu_line(k, NULL, "int %sin[%d] = {0}, %sc%s;", p, rows, p, sets);
  if (s->in_place) return;
  if (s->stored_if) md_cu_line(k, NULL, "%s %sto[%d] = {0};", md_cu_index_type(k), p, rows);
  md_cu_put_vectors(k, &s->lanes, rows, true);
}

md_cu_mark md_cu_side_open(md_cu_kernel *k, const md_cu_side *s) {
  int rows = md_cu_side_rows(s);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = s->sets > 1
                     ? md_cu_open(k, NULL, "for (int i = set * %d; i < set * %d + %d; i++) {", rows,
                                  rows, rows)
                     : md_cu_open(k, NULL, "for (int i = 0; i < %d; i++) {", rows);
  const char *row = s->sets > 1 ? md_format(k->w->arena, "i %% %d", rows) : "i";
  md_cu_line(k, NULL, "const int line = %s / %d + %s * %d;", s->thread, s->chunks, row,
             MD_CU_THREADS / s->chunks);
  return m;
}

static md_cu_ix place_of(md_cu_kernel *k, const md_cu_side *s, md_val v) {
  const md_type *t = md_type_in(k->w->r->g, v);
  md_cu_spot spot = spot_of(k, s, s->lanes.first);
  return md_cu_offset(k, t, &spot);
}

// The vector goes there as an output of the region: what the convolution reads, others will read.
static void put_place(md_cu_kernel *k, const md_cu_side *s) {
  md_cu_line(k, NULL, "%sto[i] = %s ? %s : -1;", s->p, s->stored_if, place_of(k, s, s->val));
}

void md_cu_side_load(md_cu_kernel *k, const md_cu_side *s) {
  md_cu_mark m = md_cu_open(k, NULL, "if (%sin[i]) {", s->p);
  if (s->stored_if) put_place(k, s);
  md_cu_put_loads(k, &s->lanes);
  md_cu_close(k, m);
}

// Where chunk `thread % chunks` of line `line` is in shared memory.
static const char *cell_of(md_cu_kernel *k, const md_cu_side *s) {
  const char *chunk = md_format(k->w->arena, "%s %% %d", s->thread, s->chunks);
  int pitch = md_cu_pitch(s->tile, s->tile->across ? s->chunks * MD_CU_LANES : s->lines);
  if (!s->tile->swizzled) return md_format(k->w->arena, "line * %d + %s * 8", pitch, chunk);
  const char *panel = "";
  if (s->chunks > MD_CU_LANES) {
    panel = md_format(k->w->arena, "%s / 8 * %d + ", chunk, s->lines * pitch);
    chunk = md_format(k->w->arena, "%s %% 8", chunk);
  }
  return md_format(k->w->arena, "%sline * %d + (%s ^ line %% 8) * 8", panel, pitch, chunk);
}

void md_cu_side_copy(md_cu_kernel *k, const md_cu_side *s, const char *to, const char *from) {
  int64_t channels = s->lanes.channels;
  const char *bytes = channels % MD_CU_LANES ? md_format(k->w->arena, "md_lanes(%lld - %s) * 2",
                                                         (long long)channels, s->lanes.first)
                                             : "16";
  if (!from)
    from = md_format(k->w->arena, "%s + %s", md_cu_pointer(k, s->copied, false),
                     place_of(k, s, s->copied));
  md_cu_line(k, md_cu_comment(k, s->copied), "md_cp_async(%s + %s, %s, %sin[i] ? %s : 0);", to,
             cell_of(k, s), from, s->p, bytes);
}

// The table is read once for all rows where it fits into registers and is the same for all.
static bool reads_once(const md_cu_side *s) {
  if (s->lanes.num_slots > MAX_SLOTS) return false;
  return s->in_place ||
         (s->tile->swizzled && s->sets == 1 && s->tile->n <= 128 && s->lanes.groups == 1);
}

void md_cu_side_prepare(md_cu_kernel *k, const md_cu_side *s) {
  if (reads_once(s)) md_cu_put_slots(k, &s->lanes);
}

// The store of eight channels v, as bf16 or as they are.
static const char *store_text(md_cu_kernel *k, bool rounds, const char *to) {
  return md_format(k->w->arena, rounds ? "md_st_h8(%s, md_round_h8(v));" : "md_st_f8(%s, v);", to);
}

void md_cu_side_store_row(md_cu_kernel *k, const md_cu_side *s, const char *to) {
  md_cu_line(k, NULL, "md_f8 v = {{0}};");
  md_cu_mark in = md_cu_open(k, NULL, "if (%sin[i]) {", s->p);
  if (!reads_once(s)) md_cu_put_slots(k, &s->lanes);
  md_cu_put_channels(k, &s->lanes);
  if (s->stored_if) {
    const char *place =
        md_format(k->w->arena, "%s + %sto[i]", md_cu_pointer(k, s->val, true), s->p);
    bool rounds = md_type_in(k->w->r->g, s->val)->dtype == MD_BF16;
    md_cu_line(k, md_cu_comment(k, s->val), "if (%sto[i] >= 0) %s", s->p,
               store_text(k, rounds, place));
  }
  md_cu_close(k, in);
  const char *few = vectors(s) < MD_CU_THREADS
                        ? md_format(k->w->arena, "if (%s < %d) ", s->thread, vectors(s))
                        : "";
  const char *cell = md_format(k->w->arena, "%s + %s", to, cell_of(k, s));
  md_cu_line(k, NULL, "%s%s", few, store_text(k, s->tile->narrow, cell));
}

void md_cu_side_store(md_cu_kernel *k, const md_cu_side *s, const char *to) {
  md_cu_side_prepare(k, s);
  md_cu_mark m = md_cu_side_open(k, s);
  md_cu_side_store_row(k, s, to);
  md_cu_close(k, m);
}

// The row's formed vector to its place in memory.
static void put_store(md_cu_kernel *k, const md_cu_side *s, const char *first) {
  const md_type *t = md_type_in(k->w->r->g, s->val);
  md_cu_spot spot = {.shape = &t->shape, .pixel = "pixel", .at = {NULL, s->lanes.first}};
  md_cu_mark m = md_cu_open(k, NULL, "if (is_in && %s) {", s->stored_if);
  md_cu_line(k, NULL, "const %s pixel = %s + line;", md_cu_index_type(k), first);
  md_cu_line(k, md_cu_comment(k, s->val), "md_st_h8(%s + %s, h);", md_cu_pointer(k, s->val, true),
             md_cu_offset(k, t, &spot));
  md_cu_close(k, m);
}

// Without branches, so that rows are formed side by side.
void md_cu_side_form(md_cu_kernel *k, const md_cu_side *s, const char *to, const char *inside,
                     const char *first) {
  md_cu_line(k, NULL, "const md_h8 none = {{0}};");
  md_cu_side_prepare(k, s);
  md_cu_put_vectors(k, &s->lanes, md_cu_side_rows(s), false);
  md_cu_mark m = md_cu_side_open(k, s);
  md_cu_line(k, NULL, "%sv0[i] = md_ld_h8(%s + %s, 8);", s->p, to, cell_of(k, s));
  md_cu_close(k, m);
  m = md_cu_side_open(k, s);
  md_cu_line(k, NULL, "md_f8 v = {{0}};");
  if (!reads_once(s)) md_cu_put_slots(k, &s->lanes);
  md_cu_put_channels(k, &s->lanes);
  md_cu_line(k, NULL, "const int is_in = %s;", inside);
  md_cu_line(k, NULL, "const md_h8 h = is_in ? md_round_h8(v) : none;");
  if (s->stored_if) put_store(k, s, first);
  md_cu_line(k, NULL, "md_st_h8(%s + %s, h);", to, cell_of(k, s));
  md_cu_close(k, m);
}

void md_cu_put_inside(md_cu_kernel *k, const md_cu_side *s, const md_cu_map *a, const char *also) {
  const char *p = s->p;
  md_text text = {0};
  md_put(&text, "%sin[i] = %sok", p, p);
  if (also) md_put(&text, " && %s", also);
  for (int x = 0; !s->by_pixel && x < 3; x++)
    md_put(&text, " && %s%c[i] >= 0 && %s%c[i] < %lld", p, md_cu_axis_letters[x], p,
           md_cu_axis_letters[x], (long long)a->axis[x].size);
  md_cu_line(k, NULL, "%s;", text.s);
  md_text_free(&text);
}

// Its number and its digits.
static void put_tap(md_cu_kernel *k, const md_cu_side *s, const md_cu_map *a, md_cu_ix tap) {
  const char *p = s->p;
  int64_t w = a->axis[2].taps, h = a->axis[1].taps;
  md_cu_line(k, NULL, "const int %sm = %s;", p, tap);
  md_cu_line(k, NULL, "const int %sm0 = %s;", p, md_cu_digit(k, tap, MD_MAX(h * w, 1), 0));
  md_cu_line(k, NULL, "const int %sm1 = %s;", p, md_cu_digit(k, tap, MD_MAX(w, 1), MD_MAX(h, 1)));
  md_cu_line(k, NULL, "const int %sm2 = %s;", p, md_cu_digit(k, tap, 1, MD_MAX(w, 1)));
}

void md_cu_put_tap(md_cu_kernel *k, const md_cu_side *s, const md_cu_map *a, int64_t channels,
                   const char *chunk) {
  int64_t per_tap = md_ceil_div(channels, MD_CU_LANES);
  md_cu_ix tap = md_cu_digit(k, chunk, per_tap, 0), rest = md_cu_digit(k, chunk, 1, per_tap);
  md_cu_line(k, NULL, "%s = %s * 8;", s->lanes.first, rest);
  put_tap(k, s, a, tap);
  md_cu_line(k, NULL, "const int %sok = %s < %lld;", s->p, chunk,
             (long long)(md_cu_map_taps(a) * per_tap));
}

// All threads have the same tap where it takes whole steps.
void md_cu_put_tap_of_step(md_cu_kernel *k, const md_cu_side *s, const md_cu_map *a,
                           int64_t channels, const char *step) {
  int64_t per_tap = md_ceil_div(channels, MD_CU_LANES);
  if (per_tap % s->chunks) {
    md_cu_line(k, NULL, "const int chunk = %s * %d + %s %% %d;", step, s->chunks, s->thread,
               s->chunks);
    md_cu_put_tap(k, s, a, channels, "chunk");
    return;
  }
  int64_t steps = per_tap / s->chunks;
  md_cu_ix tap = md_cu_digit(k, step, steps, 0), rest = md_cu_digit(k, step, 1, steps);
  md_cu_line(k, NULL, "%s = %s * %d + %s %% %d * 8;", s->lanes.first, rest, s->chunks * MD_CU_LANES,
             s->thread, s->chunks);
  put_tap(k, s, a, tap);
  md_cu_line(k, NULL, "const int %sok = 1;", s->p);
}

// sample; q0, q1, q2: the digits of a place of a sample.
void md_cu_put_place(md_cu_kernel *k, const md_cu_map *a, const char *place, const char *sample0) {
  md_cu_ix ix = place;
  int64_t w = a->axis[2].num, h = a->axis[1].num, t = a->axis[0].num;
  md_cu_line(k, NULL, "const %s sample = %s + %s;", md_cu_index_type(k), sample0,
             md_cu_digit(k, ix, t * h * w, 0));
  md_cu_line(k, NULL, "const int q0 = %s;", md_cu_digit(k, ix, h * w, t));
  md_cu_line(k, NULL, "const int q1 = %s;", md_cu_digit(k, ix, w, h));
  md_cu_line(k, NULL, "const int q2 = %s;", md_cu_digit(k, ix, 1, w));
}
