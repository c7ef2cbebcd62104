// SPDX-License-Identifier: Apache-2.0
// Values of eight neighbouring channels at once. What depends on the channel alone (a reciprocal
// deviation, say) is made once for each channel of the block's table; tensors that keep their channels
// innermost are loaded as vectors; only what is left is done for each element.
#include "codegen/cuda/gen.h"

#include <string.h>

static void swap(md_cu_kernel *k, md_cu_stream *s) {
  md_cu_stream was = k->now;
  k->now = *s;
  *s = was;
}

void md_cu_lanes_begin(md_cu_kernel *k, md_cu_lanes *l) {
  l->lane = (md_cu_stream){0};
  swap(k, &l->lane);
  l->outside = l->lane;
  k->lanes = l;
}

void md_cu_lanes_end(md_cu_kernel *k) {
  md_cu_lanes *l = k->lanes;
  l->lane = k->now;
  k->now = l->outside;
  k->lanes = NULL;
}

void md_cu_lanes_free(md_cu_lanes *l) {
  md_cu_stream *all[] = {&l->table, &l->load, &l->before, &l->lane};
  for (int i = 0; i < MD_COUNT(all); i++) {
    md_text_free(&all[i]->text);
    md_text_free(&all[i]->code);
  }
}

static bool is_channel(md_cu_ix x) { return x && !strcmp(x, MD_CU_CHANNEL); }

bool md_cu_is_lane(const md_cu_kernel *k, md_cu_ix x) {
  return k->lanes && k->lanes->is_line && is_channel(x);
}

md_cu_ix md_cu_mirrored(const md_cu_kernel *k, int64_t size) {
  return md_format(k->w->arena, "(%lld - " MD_CU_CHANNEL ")", (long long)size - 1);
}

static bool is_mirrored(const md_cu_kernel *k, md_cu_ix x, int64_t size) {
  return x && !strcmp(x, md_cu_mirrored(k, size));
}

// --- the table

void md_cu_enter_table(md_cu_kernel *k) {
  MD_ASSERT(!k->lanes->in_table, "the table is entered once");
  swap(k, &k->lanes->table);
  k->lanes->in_table = true;
}

void md_cu_leave_table(md_cu_kernel *k) {
  swap(k, &k->lanes->table);
  k->lanes->in_table = false;
}

bool md_cu_by_channel(const md_cu_kernel *k, md_val v, const md_cu_spot *s) {
  const md_cu_lanes *l = k->lanes;
  if (!l || l->in_table || l->no_table) return false;
  const md_type *t = md_type_in(k->w->r->g, v);
  const md_shape *shape = &t->shape;
  if (md_cu_compute_type(t->dtype) != MD_CU_FLOAT) return false;  // the table's type
  int last = shape->rank - 1;
  if (last < 0 || last > 1 || shape->dim[last] != l->channels || !is_channel(s->at[last]))
    return false;
  return last == 0 || shape->dim[0] == 1 || shape->dim[0] == l->groups;
}

md_cu_spot md_cu_table_spot(const md_cu_kernel *k, md_val v) {
  const md_shape *shape = &md_type_in(k->w->r->g, v)->shape;
  md_cu_spot s = {.shape = shape};
  if (shape->rank == 2) s.at[0] = shape->dim[0] == 1 ? "0" : "g";
  s.at[shape->rank - 1] = MD_CU_CHANNEL;
  return s;
}

static const char **grown(md_cu_kernel *k, const char **list, int num, int *cap) {
  if (num < *cap) return list;
  *cap = MD_MAX(16, 2 * *cap);
  const char **to = MD_NEW_ARRAY(k->w->arena, const char *, *cap);
  if (num) memcpy(to, list, sizeof *to * (size_t)num);
  return to;
}

static int64_t slot_size(const md_cu_lanes *l) {
  return l->groups * md_round_up(l->channels, MD_CU_LANES);
}

md_cu_term md_cu_carry(md_cu_kernel *k, const md_cu_term *t) {
  md_cu_lanes *l = k->lanes;
  const char *text = md_cu_as(k->w->arena, t, MD_CU_FLOAT);
  int i = 0;
  while (i < l->num_slots && strcmp(l->slot[i], text) != 0) i++;
  if (i == l->num_slots) {
    l->slot = grown(k, l->slot, l->num_slots, &l->cap_slots);
    l->slot[l->num_slots++] = text;
  }
  return (md_cu_term){.type = MD_CU_FLOAT,
                      .text = md_format(k->w->arena, "%sp%d.x[j]", l->prefix, i)};
}

md_cu_term md_cu_plain(md_cu_kernel *k, const md_cu_term *t) {
  return t->by_channel ? md_cu_carry(k, t) : *t;
}

int md_cu_table_bytes(const md_cu_lanes *l) { return (int)(l->num_slots * slot_size(l) * 4); }

void md_cu_put_table(md_cu_kernel *k, const md_cu_lanes *l) {
  if (!l->num_slots) return;
  int64_t padded = md_round_up(l->channels, MD_CU_LANES);
  md_cu_mark m =
      md_cu_open(k, "once for each channel", "for (int e = md_thread(); e < %lld; e += %d) {",
                 (long long)slot_size(l), MD_CU_THREADS);
  bool groups = l->groups > 1, rest = padded != l->channels;
  if (groups) {
    md_cu_line(k, NULL, "const int g = e / %lld;", (long long)padded);
    md_cu_line(k, NULL, "const int %s = e %% %lld;", MD_CU_CHANNEL, (long long)padded);
  } else {
    md_cu_line(k, NULL, "const int %s = e;", MD_CU_CHANNEL);
  }
  md_cu_mark inner = {0};
  if (rest) inner = md_cu_open(k, NULL, "if (%s < %lld) {", MD_CU_CHANNEL, (long long)l->channels);
  md_cu_splice(k, &l->table);
  md_cu_line(k, NULL, "const int to = e %% 8 / 4 * %lld + e / 8 * 4 + e %% 4;",
             (long long)(slot_size(l) / 2));
  for (int i = 0; i < l->num_slots; i++)
    md_cu_line(k, NULL, "%stable[%lld + to] = %s;", l->prefix, (long long)(i * slot_size(l)),
               l->slot[i]);
  if (rest) md_cu_close(k, inner);
  md_cu_close(k, m);
}

// --- vectors

// How many channels of a vector are there.
static const char *count(const md_cu_kernel *k, const md_cu_lanes *l) {
  if (l->channels % MD_CU_LANES == 0) return "8";
  return md_format(k->w->arena, "md_lanes(%lld - %s)", (long long)l->channels, l->first);
}

bool md_cu_is_vector(const md_type *t) {
  return t->block > 0 && t->block % MD_CU_LANES == 0 && md_cu_vector_kind(t);
}

const char *md_cu_vector_kind(const md_type *t) {
  switch (t->dtype) {
  case MD_BF16: return "h8";
  case MD_F32: return "f8";
  case MD_I32: return "i32x8";
  case MD_U8: return "u8x8";
  default: return NULL;
  }
}

const char *md_cu_made_kind(const md_type *t) {
  return t->dtype == MD_BF16 ? "f8" : md_cu_vector_kind(t);
}

void md_cu_make_lane(md_cu_kernel *k, md_val v, const char *made, const char *text) {
  bool narrow = md_type_in(k->w->r->g, v)->dtype == MD_U8;
  md_cu_line(k, NULL, narrow ? "%s.x[j] = (md_u8)(%s);" : "%s.x[j] = %s;", made, text);
}

void md_cu_put_vector(md_cu_kernel *k, md_val v, md_cu_spot *s, const char *made) {
  const md_type *t = md_type_in(k->w->r->g, v);
  md_cu_ix at = md_cu_offset(k, t, s);
  md_cu_line(k, md_cu_comment(k, v), "md_st_%s(%s + %s, %s);", md_cu_vector_kind(t),
             md_cu_pointer(k, v, true), at,
             t->dtype == MD_BF16 ? md_format(k->w->arena, "md_round_h8(%s)", made) : made);
}

// Views make indices of their own, among the lanes: what stands before those cannot have them.
static bool is_derived(const md_cu_kernel *k, const md_cu_spot *s) {
  for (int i = 0; i < s->shape->rank; i++)
    if (s->at[i] && md_cu_is_named(k, s->at[i])) return true;
  return false;
}

// From lane to lane.
static bool differs(const md_cu_kernel *k, const md_cu_spot *s) {
  int64_t number;
  bool at_channel = s->flat && !md_cu_known(s->flat, &number);
  for (int i = 0; i < s->shape->rank; i++)
    at_channel |= is_channel(s->at[i]) || is_mirrored(k, s->at[i], s->shape->dim[i]);
  return at_channel || is_derived(k, s);
}

const char *md_cu_vector(md_cu_kernel *k, md_val v, const md_cu_spot *s) {
  md_cu_lanes *l = k->lanes;
  const md_type *t = md_type_in(k->w->r->g, v);
  if (!l || l->in_table) return NULL;
  int axis = l->is_line ? t->shape.rank - 1 : 1;
  bool lies_so = l->is_line ? !t->block && axis >= 0 && md_cu_vector_kind(t) : md_cu_is_vector(t);
  bool mirrored = l->is_line && lies_so && is_mirrored(k, s->at[axis], l->channels);
  bool fits = !is_derived(k, s) && lies_so && t->shape.dim[axis] == l->channels &&
              (mirrored || is_channel(s->at[axis]));
  if (!fits) {
    l->is_scattered |= differs(k, s);
    return NULL;
  }
  const char *kind = md_cu_vector_kind(t);
  const char *name = *l->row ? md_format(k->w->arena, "%sv%d%s", l->prefix, l->num_vectors, l->row)
                             : md_format(k->w->arena, "%sw%d", l->prefix, k->num_value++);
  swap(k, &l->load);
  md_cu_spot first = *s;
  first.flat = NULL;
  first.at[axis] = l->first;
  if (mirrored)  // from the last lane to the first
    first.at[axis] = md_cu_linear(k, 1, &l->first, (int64_t[]){-1}, l->channels - MD_CU_LANES);
  md_cu_ix at = md_cu_offset(k, t, &first);
  md_cu_line(k, md_cu_comment(k, v), "%s%s = md_ld_%s(%s + %s, %s);",
             *l->row ? "" : md_format(k->w->arena, "const md_%s ", kind), name, kind,
             md_cu_pointer(k, v, false), at, count(k, l));
  swap(k, &l->load);
  if (*l->row) {
    l->vector_type = grown(k, l->vector_type, l->num_vectors, &l->cap_vectors);
    l->vector_type[l->num_vectors++] = kind;
    l->vector = v;
    l->vector_at = *s;
  }
  return md_format(k->w->arena, t->dtype == MD_BF16 ? "md_h2f(%s, %s)" : "%s.x[%s]", name,
                   mirrored ? "7 - j" : "j");
}

int md_cu_vector_words(const md_cu_lanes *l) {
  int words = 0;
  for (int i = 0; i < l->num_vectors; i++) words += strcmp(l->vector_type[i], "h8") ? 8 : 4;
  return words;
}

void md_cu_put_vectors(md_cu_kernel *k, const md_cu_lanes *l, int rows, bool cleared) {
  for (int i = 0; i < l->num_vectors; i++)
    md_cu_line(k, NULL, "md_%s %sv%d[%d]%s;", l->vector_type[i], l->prefix, i, rows,
               cleared ? " = {{{0}}}" : "");
}

void md_cu_put_loads(md_cu_kernel *k, const md_cu_lanes *l) { md_cu_splice(k, &l->load); }

void md_cu_put_slots(md_cu_kernel *k, const md_cu_lanes *l) {
  const char *group = l->groups == 1 ? ""
                                     : md_format(k->w->arena, "%s * %lld + ", l->group,
                                                 (long long)md_round_up(l->channels, 8) / 2);
  for (int i = 0; i < l->num_slots; i++)
    md_cu_line(k, NULL, "const md_f8 %sp%d = md_ld_halves(%stable + %lld + %s%s / 2, %lld, %s);",
               l->prefix, i, l->prefix, (long long)(i * slot_size(l)), group, l->first,
               (long long)(slot_size(l) / 2), count(k, l));
}

void md_cu_put_channels(md_cu_kernel *k, const md_cu_lanes *l) {
  md_cu_splice(k, &l->before);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int j = 0; j < %d; j++) {", MD_CU_LANES);
  md_cu_line(k, NULL, "const int %s = %s + j;", MD_CU_CHANNEL, l->first);
  bool rest = l->channels % MD_CU_LANES != 0;
  if (rest) md_cu_line(k, NULL, "if (%s >= %lld) break;", MD_CU_CHANNEL, (long long)l->channels);
  md_cu_splice(k, &l->lane);
  md_cu_close(k, m);
}

void md_cu_put_lanes(md_cu_kernel *k, const md_cu_lanes *l) {
  md_cu_put_slots(k, l);
  md_cu_put_channels(k, l);
}

// --- loops of their own over the lanes

bool md_cu_enter_before(md_cu_kernel *k, const md_cu_spot *s) {
  md_cu_lanes *l = k->lanes;
  if (!l || l->in_table || l->is_line || is_derived(k, s)) return false;
  for (int i = 0; i < s->shape->rank; i++)
    if (!s->at[i] && !s->pixel) return false;
  swap(k, &l->before);
  return true;
}

void md_cu_leave_before(md_cu_kernel *k) { swap(k, &k->lanes->before); }

void md_cu_open_lanes(md_cu_kernel *k, md_cu_lanes *inner) {
  *inner = *k->lanes;
  inner->load = inner->before = inner->lane = (md_cu_stream){0};
  inner->row = "";
  inner->around = k->lanes;
  k->lanes = inner;
  swap(k, &inner->lane);
}

void md_cu_close_lanes(md_cu_kernel *k) {
  md_cu_lanes *inner = k->lanes, *l = inner->around;
  swap(k, &inner->lane);
  md_cu_put_loads(k, inner);
  md_cu_put_channels(k, inner);
  l->table = inner->table;
  l->slot = inner->slot;
  l->num_slots = inner->num_slots;
  l->cap_slots = inner->cap_slots;
  inner->table = (md_cu_stream){0};
  md_cu_lanes_free(inner);
  k->lanes = l;
}

// --- lines of another stream

void md_cu_splice(md_cu_kernel *k, const md_cu_stream *s) {
  const char *line = s->text.s ? s->text.s : "";
  while (*line) {
    size_t len = strcspn(line, "\n");
    md_put(&k->now.text, "%*s%.*s\n", 2 * k->now.indent, "", (int)len, line);
    line += len + 1;
  }
  if (s->code.len) md_put_bytes(&k->now.code, s->code.s, s->code.len);
}
