// SPDX-License-Identifier: Apache-2.0
// TMA: a unit beside the threads copies boxes of a tensor in global memory, or bytes in a row, to shared
// memory and counts their bytes at an mbarrier. Before a wait for that mbarrier nobody may touch them, wherever they have
// got to. What lies outside of the tensor is zero and counts as well.
#include "tests/simt/machine.h"

#include <string.h>

#include "base/base.h"

enum { MAX_TRANSFERS = 256, MAX_ACQUIRED = 64, ROW = 128 };

typedef struct Transfer {
  unsigned char *to;
  Bar *bar;
  int64_t phase;     // of the mbarrier, in which it landed
  const void *from;  // bytes in a row; NULL: a box of the map
  simt_tmap map;
  int at[5], offset[3];  // c w h d n; of the window, w h d
  int64_t bytes;
  bool landed;
  int line;
} Transfer;

_Static_assert(sizeof(simt_tmap) <= 128, "a tensor map has the size of the driver's");

static Transfer transfers[MAX_TRANSFERS];
static int num;

void simt_tma_(void *shared, const void *map, void *bar, const int *at, const int *offset,
               int line);
void simt_bulk_(void *shared, const void *p, int bytes, void *bar, int line);

// Who has acquired which map in memory, in the block.
static struct {
  const void *map;
  int thread;
} acquired[MAX_ACQUIRED];
static int num_acquired;

int simt_thread_(void);
void simt_tmap_acquire_(const void *map, int line);

void simt_tmap_acquire_(const void *map, int line) {
  if (num_acquired == MAX_ACQUIRED)
    simt_error(true, (simt_where){.line = line}, "too many tensor maps are acquired");
  acquired[num_acquired].map = map;
  acquired[num_acquired++].thread = simt_thread_();
}

static bool is_acquired(const void *map) {
  for (int i = 0; i < num_acquired; i++)
    if (acquired[i].map == map && acquired[i].thread == simt_thread_()) return true;
  return false;
}

static int64_t place_of(const void *p) { return (const unsigned char *)p - simt_shared_(); }

static int64_t rows_of(const simt_tmap *m) {
  if (m->is_im2col) return m->pixels;
  int64_t rows = 1;
  for (int i = 1; i < m->rank; i++) rows *= m->box[i];
  return rows;
}

static int64_t bytes_of(const simt_tmap *m) { return rows_of(m) * m->box[0] * 2; }

// The place of row r of the transfer: coordinates of its first element.
static void find_row(const Transfer *t, int64_t r, int at[5]) {
  const simt_tmap *m = &t->map;
  memcpy(at, t->at, sizeof t->at);
  if (!m->is_im2col) {
    for (int i = 1; i < m->rank; i++) {
      at[i] += (int)(r % m->box[i]);
      r /= m->box[i];
    }
    return;
  }
  // Pixels go through the box of each image, w first, then h, d, n.
  int rank = m->rank, carry = 0;
  for (int i = 1; i < rank - 1; i++) {
    int first = m->lower[i - 1], last = m->dim[i] - 1 + m->upper[i - 1];
    int num_steps = (last - first) / m->step[i] + 1, from = (t->at[i] - first) / m->step[i];
    int64_t k = from + (i == 1 ? r : carry);
    at[i] = first + (int)(k % num_steps) * m->step[i] + t->offset[i - 1];
    carry = (int)(k / num_steps);
  }
  at[rank - 1] += carry;
}

// The elements of a row that are inside: how many, from where.
static int inside(const simt_tmap *m, const int at[5], const char **from) {
  int64_t off = 0;
  for (int i = 1; i < m->rank; i++) {
    if (at[i] < 0 || at[i] >= m->dim[i]) return 0;
    off += (int64_t)at[i] * m->stride[i];
  }
  *from = (const char *)m->base + off + at[0] * 2;
  return MD_MAX(MD_MIN(m->box[0], m->dim[0] - at[0]), 0);
}

static unsigned char *chunk_at(const Transfer *t, int64_t off) {
  int64_t at = t->to - simt_shared_() + off;
  if (t->map.is_swizzled) at ^= (at >> 7 & 7) << 4;
  return simt_shared_() + at;
}

static void copy_box(const Transfer *t) {
  const simt_tmap *m = &t->map;
  for (int64_t r = 0; r < rows_of(m); r++) {
    unsigned char row[512] = {0};
    int at[5], bytes = m->box[0] * 2;
    const char *from = NULL;
    find_row(t, r, at);
    int elements = inside(m, at, &from);
    if (elements) memcpy(row, from, (size_t)elements * 2);
    for (int i = 0; i < bytes; i += 16) memcpy(chunk_at(t, r * bytes + i), row + i, 16);
  }
}

static void land(Transfer *t) {
  if (t->from) memcpy(t->to, t->from, (size_t)t->bytes);
  else copy_box(t);
  t->landed = true;
  t->phase = simt_bar_phase(t->bar);
  simt_bar_land(t->bar, t->bytes);
}

bool simt_tma_run(void) {
  int left = 0, which;
  for (int i = 0; i < num; i++) left += !transfers[i].landed;
  if (!left) return false;
  which = simt_is_eager() ? 0 : (int)(simt_draw() % (uint64_t)left);
  for (int i = 0; i < num; i++)
    if (!transfers[i].landed && !which--) {
      land(&transfers[i]);
      break;
    }
  return true;
}

static void check_target(const Transfer *t, int align, simt_where at) {
  if (!simt_bar_is_fenced(t->bar))
    simt_error(true, at, "TMA with an mbarrier that was not fenced after its initialisation");
  if (place_of(t->to) % align)
    simt_error(true, at, "TMA to shared memory +%lld: misaligned", (long long)place_of(t->to));
  simt_access_shared("TMA", t->to, t->bytes, 16, true, at.line);
}

static void check_box(const Transfer *t, simt_where at) {
  const simt_tmap *m = &t->map;
  if (m->is_im2col)
    for (int i = 0; i + 2 < m->rank; i++)
      if (t->at[i + 1] < m->lower[i] || (t->at[i + 1] - m->lower[i]) % m->step[i + 1] ||
          t->offset[i] < 0)
        simt_error(true, at, "TMA at %d on axis %c, where no window begins", t->at[i + 1],
                   "whd"[i]);
  for (int64_t r = 0; r < rows_of(m); r++) {
    int place[5];
    const char *from = NULL;
    find_row(t, r, place);
    int elements = inside(m, place, &from);
    if (elements) simt_access(from, elements * 2, 2, false, at);
  }
}

static Transfer *begin(void *shared, void *bar, int line) {
  if (num == MAX_TRANSFERS)
    simt_error(true, (simt_where){.line = line}, "too many transfers in flight");
  Transfer *t = &transfers[num];
  *t = (Transfer){.to = shared, .bar = simt_bar(bar, line), .line = line};
  return t;
}

static void fly(const Transfer *t) {
  simt_fly(t->to, (int)t->bytes);
  num++;
  if (simt_is_eager()) simt_tma_run();
}

void simt_tma_(void *shared, const void *map, void *bar, const int *at, const int *offset,
               int line) {
  simt_where where = {.line = line};
  Transfer *t = begin(shared, bar, line);
  memcpy(&t->map, map, sizeof t->map);
  memcpy(t->at, at, sizeof t->at);
  if (offset) memcpy(t->offset, offset, sizeof t->offset);
  if (t->map.is_im2col != (offset != NULL))
    simt_error(true, where, "TMA of another kind than its tensor map");
  if (t->map.is_in_memory && !is_acquired(map))
    simt_error(true, where, "TMA by a tensor map in memory without md_tmap_acquire");
  t->bytes = bytes_of(&t->map);
  check_target(t, t->map.is_swizzled ? 1024 : 128, where);
  check_box(t, where);
  fly(t);
}

void simt_bulk_(void *shared, const void *p, int bytes, void *bar, int line) {
  simt_where where = {.line = line};
  Transfer *t = begin(shared, bar, line);
  t->from = p;
  t->bytes = bytes;
  if (bytes <= 0 || bytes % 16)
    simt_error(true, where, "a bulk copy of %d bytes: a multiple of 16", bytes);
  if (simt_is_shared(p)) simt_error(true, where, "a bulk copy reads shared memory");
  check_target(t, 16, where);
  simt_access(p, bytes, 16, false, where);
  fly(t);
}

void simt_tma_settle(const Bar *b) {
  int kept = 0;
  simt_act_as(simt_bar_agent(b));
  for (int i = 0; i < num; i++) {
    Transfer *t = &transfers[i];
    if (t->bar == b && t->landed && t->phase < simt_bar_phase(b)) simt_land(t->to, (int)t->bytes);
    else transfers[kept++] = *t;
  }
  num = kept;
  simt_act_as(-1);
}

void simt_tma_reset(void) { num = num_acquired = 0; }

void simt_tma_end(void) {
  if (num)
    simt_error(true, (simt_where){.line = transfers[0].line},
               "the block ends with a TMA transfer that nobody has waited for");
}

// --- tensor maps

simt_tmap simt_tmap_tiled(void *base, int rank, const int *dim, const int *box, bool swizzled) {
  simt_tmap m = {.base = base, .rank = rank, .is_swizzled = swizzled};
  int64_t stride = 2;
  for (int i = 0; i < rank; i++) {
    m.dim[i] = dim[i];
    m.box[i] = box[i];
    m.stride[i] = (int)stride;
    stride *= dim[i];
    MD_ASSERT(box[i] >= 1 && box[i] <= 256, "a box of %d", box[i]);
    MD_ASSERT(!i || m.stride[i] % 16 == 0, "strides of tensor maps are multiples of 16 bytes");
  }
  MD_ASSERT(box[0] * 2 % 16 == 0 && (!swizzled || box[0] * 2 == ROW), "rows of a box");
  MD_ASSERT((uintptr_t)base % 16 == 0, "a tensor map's memory is aligned to 16 bytes");
  return m;
}

simt_tmap simt_tmap_im2col(void *base, const int dim[5], const int lower[3], const int upper[3],
                           const int step[3], int channels, int pixels, bool swizzled) {
  const int box[5] = {channels, 1, 1, 1, 1};
  simt_tmap m = simt_tmap_tiled(base, 5, dim, box, swizzled);
  m.is_im2col = true;
  m.pixels = pixels;
  for (int i = 0; i < 3; i++) {
    m.lower[i] = lower[i];
    m.upper[i] = upper[i];
    m.step[i + 1] = step[i];
    MD_ASSERT(MD_MIN(lower[i], upper[i]) >= -16 && MD_MAX(lower[i], upper[i]) <= 15,
              "corners of tensor maps are small");
    MD_ASSERT(step[i] >= 1 && step[i] <= 8, "steps of tensor maps are at most 8");
  }
  MD_ASSERT(pixels >= 1 && pixels <= 1024, "%d pixels", pixels);
  return m;
}
