// SPDX-License-Identifier: Apache-2.0
// recompute: where the plan needs more memory than is allowed, values are computed again rather than
// kept. Bitwise.
//
//   before   v = f(u), ... , [ peak ] , ... , g(v), h(v)         v is there all the time
//   after    v = f(u), ... , [ peak ] , ... , v' = f(u), g(v'), h(v')
//
// The order of regions stays. Of the values that lie in memory at the peak and are neither made nor
// read there, the one is taken that frees most bytes for the work of making it once more. Its copy,
// those nodes of its region that it depends on, stands right before the first reader behind the
// peak and serves all readers from there. What the copy reads is kept until then, or, where it is
// large and was gone at the peak, made again before it. Then there is another peak, or a lower one at
// the same place; copies are values like others. No choice makes any moment as high as the peak was.
//
// The choices do not depend on the limit: a lower one takes more of them. What the program needs in
// the end is known to whoever compiles it (md_memory_limit), and asked when the peak is low enough.
// Where no choices reach the limit, those that need least stay, and the program is refused later.
//
// Never made again: updates, results, what lies in the buffer of a state, and what would read a state
// that has been overwritten by then.
#include "passes/passes.h"

#include <string.h>

enum {
  FLOPS_A_BYTE = 10,    // that a CPU computes while it moves a byte
  MAX_COPIES_EACH = 3,  // of a region, on average
  MAX_CHAIN = 8,        // values that are made for one
  MAX_KEPT = 32,        // values that are kept for it
  SMALL_PART = 8,       // what is smaller than this part of it is not worth being made for it
};

// What runs at once: a region, or the nodes of it that one value depends on.
typedef struct Part {
  md_val *in, *out;  // what it reads from memory and what it makes in the arena
  int num_in, num_out;
  double work;  // FLOPs, and bytes as FLOPs; 0: not looked at yet
} Part;

typedef struct Step {
  int region;
  md_val only;  // a copy that makes this value; MD_NONE: the region itself
  int turn;     // the choice that it came with; regions: 0
} Step;

// Each time that a value is made. A reader reads the one that was made last.
typedef struct Copy {
  md_val v;
  int from, last;     // steps
  int before, after;  // the uses next to the peak, at and behind it; after < 0: none
  int older;          // the one that was made before, or 0
} Copy;

typedef struct Work {
  md_rewriter *r;
  const md_graph *g;
  md_live live;
  int64_t *bytes;  // by value: in the arena
  int *taken_in;   // by state: the region that overwrites it, or 0
  Part *whole;     // by region
  Part *part;      // by value
  bool *needed;    // by node: scratch
  bool *is_input;  // by value: scratch

  Step *step;
  int num, cap, turns;
  // Of the steps as they are:
  int *place;             // by region: its step
  int64_t *alive, *made;  // by step: bytes
  int peak;               // the step at which most bytes are alive
  Copy *copy;             // [1 .. num_values]: as made by the regions; behind: by copies
  int num_copies;
  int *newest;  // by value: copy

  md_val *again;  // by value: while a copy is emitted
} Work;

// --- parts

static void add_input(Work *w, Part *p, md_val v) {
  if (w->is_input[v]) return;
  w->is_input[v] = true;
  p->in[p->num_in++] = v;
}

static bool is_part(const Work *w, int region, int node) {
  return w->needed[node] && md_region_of(w->g->node[node]) == region;
}

// Leaves `needed` true for its nodes.
static Part part_of(Work *w, int region, md_val only) {
  const md_graph *g = w->g;
  const md_region *r = &g->region[region];
  int num_in = 0, num_out = 0;
  for (int i = r->first; i < r->first + r->num; i++) {
    num_in += g->node[i]->num_in;
    num_out += g->node[i]->num_out;
    w->needed[i] = !only;
  }
  if (only) w->needed[md_def(g, only)->index] = true;
  Part p = {.in = MD_NEW_ARRAY(w->r->scratch, md_val, num_in + 1),
            .out = MD_NEW_ARRAY(w->r->scratch, md_val, num_out + 1)};
  for (int i = r->first + r->num - 1; i >= r->first; i--) {
    const md_node *n = g->node[i];
    if (!is_part(w, region, i)) continue;
    md_cost cost = {0};
    md_node_cost(g, n, &cost);
    p.work += cost.flops;
    for (int j = 0; j < n->num_in; j++) {
      const md_node *from = n->in[j] ? md_def(g, n->in[j]) : n;
      if (md_region_of(from) == region) w->needed[from->index] = true;
      else if (from->op != MD_OP_constant) add_input(w, &p, n->in[j]);
    }
    for (md_val v = n->out; v < n->out + (md_val)n->num_out; v++)
      if (w->bytes[v] && (!only || v == only)) p.out[p.num_out++] = v;
  }
  for (int i = 0; i < p.num_in; i++) {
    w->is_input[p.in[i]] = false;
    p.work += FLOPS_A_BYTE * (double)md_type_bytes(md_type_in(g, p.in[i]));
  }
  for (int i = 0; i < p.num_out; i++) p.work += FLOPS_A_BYTE * (double)w->bytes[p.out[i]];
  return p;
}

static const Part *part_at(const Work *w, int t) {
  return w->step[t].only ? &w->part[w->step[t].only] : &w->whole[w->step[t].region];
}

// --- what is alive when

static void make(Work *w, md_val v, int t) {
  int c = w->step[t].only ? w->num_copies++ : (int)v;
  w->copy[c] = (Copy){v, t, t, .before = t, .after = -1, .older = w->newest[v]};
  w->newest[v] = c;
}

// Walks the steps; `before` and `after` are meant about the peak that is known so far.
static void find_copies(Work *w) {
  memset(w->newest, 0, sizeof *w->newest * ((size_t)w->g->num_values + 1));
  w->num_copies = w->g->num_values + 1;
  for (int t = 0; t < w->num; t++) {
    const Part *p = part_at(w, t);
    if (!w->step[t].only) w->place[w->step[t].region] = t;
    for (int i = 0; i < p->num_in; i++) {
      if (!w->bytes[p->in[i]]) continue;
      Copy *c = &w->copy[w->newest[p->in[i]]];
      c->last = t;
      if (t <= w->peak) c->before = t;
      else if (c->after < 0) c->after = t;
    }
    w->made[t] = 0;
    for (int i = 0; i < p->num_out; i++) {
      make(w, p->out[i], t);
      w->made[t] += w->bytes[p->out[i]];
    }
  }
  for (int v = 1; v <= w->g->num_values; v++)
    if (w->bytes[v] && w->live.readers.kept[v]) w->copy[w->newest[v]].last = w->num - 1;
}

static void find_peak(Work *w) {
  find_copies(w);
  memset(w->alive, 0, sizeof *w->alive * ((size_t)w->num + 1));
  for (int i = 1; i < w->num_copies; i++) {
    const Copy *c = &w->copy[i];
    if (!c->v) continue;
    w->alive[c->from] += w->bytes[c->v];
    w->alive[c->last + 1] -= w->bytes[c->v];
  }
  w->peak = 0;
  for (int t = 1; t < w->num; t++) {
    w->alive[t] += w->alive[t - 1];
    if (w->alive[t] > w->alive[w->peak]) w->peak = t;
  }
  find_copies(w);
}

// --- choices

// Making c once more behind the peak, right before its next reader.
typedef struct Choice {
  const Copy *c;
  md_val make[MAX_CHAIN];      // in this order; c->v is the last
  const Copy *keep[MAX_KEPT];  // until then
  int num_make, num_keep;
  int64_t gain;  // bytes at the peak
  double work;
} Choice;

// The copy of v that a reader right before step t reads.
static const Copy *copy_before(const Work *w, md_val v, int t) {
  int c = w->newest[v];
  while (w->copy[c].from >= t) c = w->copy[c].older;
  return &w->copy[c];
}

static bool is_made(const Choice *x, md_val v) {
  for (int i = 0; i < x->num_make; i++)
    if (x->make[i] == v) return true;
  return false;
}

static const char *keep(Work *w, Choice *x, const Copy *c) {
  for (int i = 0; i < x->num_keep; i++)
    if (x->keep[i] == c) return NULL;
  if (x->num_keep == MAX_KEPT) return "is made of too many values";
  x->keep[x->num_keep++] = c;
  if (c->last < w->peak) x->gain -= w->bytes[c->v];
  return NULL;
}

// Adds v and, before it, what it is made of and is not there any more at the peak; small values are
// rather kept. NULL: done; else why not.
static const char *add_maker(Work *w, Choice *x, md_val v) {
  Part *p = &w->part[v];
  const char *why = NULL;
  int to = x->c->after;
  if (!p->in) *p = part_of(w, md_def(w->g, v)->region, v);
  for (int i = 0; i < p->num_in && !why; i++) {
    md_val u = p->in[i];
    if (w->taken_in[u] && w->place[w->taken_in[u]] < to)
      return "would read a state that is overwritten";
    if (!w->bytes[u] || is_made(x, u)) continue;
    const Copy *c = copy_before(w, u, to);
    if (c->last >= to) continue;
    bool gone = c->last < w->peak && SMALL_PART * w->bytes[u] > w->bytes[x->c->v];
    why = gone ? add_maker(w, x, u) : keep(w, x, c);
  }
  if (why) return why;
  if (x->num_make == MAX_CHAIN) return "is the last of a long chain that is not there either";
  x->make[x->num_make++] = v;
  x->work += p->work;
  return NULL;
}

// Some moment would be as high as the peak.
static bool moves_peak(const Work *w, const Choice *x) {
  int to = x->c->after, from = to;
  int64_t most = w->alive[w->peak], then = w->alive[to] - w->made[to];
  for (int i = 0; i + 1 < x->num_make; i++) then += w->bytes[x->make[i]];
  for (int i = 0; i < x->num_keep; i++) {
    then += w->bytes[x->keep[i]->v];
    from = MD_MIN(from, x->keep[i]->last + 1);
  }
  if (then >= most) return true;
  for (int t = from; t < to; t++) {
    int64_t now = w->alive[t] - (t > x->c->before ? w->bytes[x->c->v] : 0);
    for (int i = 0; i < x->num_keep; i++)
      if (x->keep[i]->last < t) now += w->bytes[x->keep[i]->v];
    if (now >= most) return true;
  }
  return false;
}

// Why c is no choice; NULL: it is, and *x tells it.
static const char *consider(Work *w, const Copy *c, Choice *x) {
  *x = (Choice){.c = c, .gain = w->bytes[c->v]};
  if (w->live.readers.kept[c->v]) return "is a result or an update";
  if (c->before == w->peak) return "is in use at the peak";
  const char *why = add_maker(w, x, c->v);
  if (why) return why;
  if (x->gain <= 0) return "is made of what takes as much memory";
  return moves_peak(w, x) ? "would make another moment as high as the peak" : NULL;
}

static bool is_at_peak(const Work *w, const Copy *c) {
  return c->v && w->bytes[c->v] && c->from <= w->peak && c->last >= w->peak;
}

static void take(Work *w, const Choice *x) {
  int to = x->c->after, num = x->num_make;
  memmove(&w->step[to + num], &w->step[to], sizeof *w->step * (size_t)(w->num - to));
  w->turns++;
  for (int i = 0; i < num; i++)
    w->step[to + i] = (Step){md_def(w->g, x->make[i])->region, x->make[i], w->turns};
  w->num += num;
  find_peak(w);
}

// Takes the best choice. False: nothing helps.
static bool choose(Work *w) {
  Choice best = {0}, x;
  for (int i = 1; i < w->num_copies && w->num + MAX_CHAIN <= w->cap; i++) {
    if (!is_at_peak(w, &w->copy[i]) || consider(w, &w->copy[i], &x)) continue;
    // gain / work, without dividing
    if (!best.c || (double)x.gain * best.work > (double)best.gain * x.work) best = x;
  }
  if (best.c) take(w, &best);
  return best.c != NULL;
}

// --- the new graph

static void emit_copy(Work *w, md_rewriter *r, const Step *s) {
  const md_region *region = &w->g->region[s->region];
  part_of(w, s->region, s->only);
  r->region = md_new_region(r, "%.100s%s", region->name, MD_AGAIN);
  for (int i = region->first; i < region->first + region->num; i++) {
    const md_node *n = w->g->node[i];
    if (!is_part(w, s->region, i)) continue;
    md_val in[MD_MAX_IN];
    for (int j = 0; j < n->num_in; j++) {
      bool inner = n->in[j] && md_region_of(md_def(w->g, n->in[j])) == s->region;
      in[j] = inner ? w->again[n->in[j]] : md_mapped(r, n->in[j]);
    }
    md_val out = md_clone_node(r, n, in);
    for (int j = 0; j < n->num_out; j++) w->again[n->out + (md_val)j] = out + (md_val)j;
  }
  r->map[s->only] = w->again[s->only];
}

static bool emit(md_rewriter *r) {
  Work *w = r->own;
  md_copy_leaves(r);
  for (int t = 0; t < w->num && !r->b.failed; t++) {
    if (w->step[t].only) emit_copy(w, r, &w->step[t]);
    else md_copy_region(r, w->step[t].region);
  }
  return !r->b.failed;
}

static const md_pass as_chosen = {.name = "recompute", .run = emit};

// Takes back all choices behind that one.
static void go_back(Work *w, int turn) {
  int num = 0;
  for (int t = 0; t < w->num; t++)
    if (w->step[t].turn <= turn) w->step[num++] = w->step[t];
  w->num = num;
  w->turns = turn;
  find_peak(w);
}

// Bytes that the program of the graph as it is chosen needs.
static int64_t program_bytes(Work *w) {
  md_graph *g = md_apply(w->r, &as_chosen, w->g, w);
  md_graph *planned = g ? md_apply(w->r, &md_pass_memory, g, NULL) : NULL;
  const md_memory_limit *limit = &w->r->options->memory;
  int64_t bytes = 0;
  if (planned) bytes = limit->needs ? limit->needs(planned, limit) : planned->arena_bytes;
  if (planned) md_graph_destroy(planned);
  if (g) md_graph_destroy(g);
  return bytes;
}

// Stops at the first choices that fit, or at those that need least.
static bool fit(Work *w, int64_t limit) {
  int64_t least = program_bytes(w), rest = least - w->alive[w->peak];
  int best = 0;
  for (bool more = true; more && least > limit;) {
    more = choose(w);
    // Worth the question when it should fit; the answer corrects what we expect.
    if (more && w->alive[w->peak] + rest > limit) continue;
    int64_t needs = program_bytes(w);
    rest = needs - w->alive[w->peak];
    if (needs >= least) continue;
    least = needs;
    best = w->turns;
  }
  go_back(w, best);
  return least <= limit;
}

static void tell(Work *w, bool fits) {
  char text[2][MD_FLOAT_CHARS];
  for (int t = 0; t < w->num; t++) {
    md_val v = w->step[t].only;
    if (v) md_site_done(w->r, md_def(w->g, v), "%s", md_bytes_text((double)w->bytes[v], text[0]));
  }
  for (int i = 1; i < w->num_copies && !fits; i++) {
    Choice x;
    if (!is_at_peak(w, &w->copy[i])) continue;
    const char *why = consider(w, &w->copy[i], &x);
    md_val v = w->copy[i].v;
    md_site_kept(w->r, md_def(w->g, v), "%s; %s", md_bytes_text((double)w->bytes[v], text[1]),
                 why ? why : "would not make the plan smaller");
  }
}

static Work work_of(md_rewriter *r) {
  const md_graph *g = r->old;
  md_arena *a = r->scratch;
  int num = g->num_regions, values = g->num_values + 1,
      cap = (1 + MAX_COPIES_EACH) * num + MAX_CHAIN;
  Work w = {.r = r,
            .g = g,
            .live = md_live_of(g, a),
            .bytes = MD_NEW_ARRAY(a, int64_t, values),
            .taken_in = MD_NEW_ARRAY(a, int, values),
            .whole = MD_NEW_ARRAY(a, Part, num + 1),
            .part = MD_NEW_ARRAY(a, Part, values),
            .needed = MD_NEW_ARRAY(a, bool, g->num_nodes + 1),
            .is_input = MD_NEW_ARRAY(a, bool, values),
            .step = MD_NEW_ARRAY(a, Step, cap + 1),
            .cap = cap,
            .place = MD_NEW_ARRAY(a, int, num + 1),
            .alive = MD_NEW_ARRAY(a, int64_t, cap + 1),
            .made = MD_NEW_ARRAY(a, int64_t, cap + 1),
            .copy = MD_NEW_ARRAY(a, Copy, values + cap),
            .newest = MD_NEW_ARRAY(a, int, values),
            .again = MD_NEW_ARRAY(a, md_val, values)};
  int64_t alignment = MD_MAX(r->options->facts.alignment, 1);
  for (md_val v = 1; v < (md_val)values; v++) {
    md_val state = w.live.storage[v];
    if (state) w.taken_in[state] = md_region_of(md_def(g, v));
    else if (w.live.stored[v]) w.bytes[v] = md_place_bytes(g, v, alignment);
  }
  for (int i = 1; i <= num; i++) {
    w.whole[i] = part_of(&w, i, MD_NONE);
    w.step[w.num++].region = i;
  }
  find_peak(&w);
  return w;
}

static bool run(md_rewriter *r) {
  int64_t limit = r->options->memory.bytes;
  Work w = work_of(r);
  if (limit > 0 && w.num) {
    int64_t before = w.alive[w.peak];
    bool fits = fit(&w, limit);
    r->rewrites = w.turns;
    r->saved = before - w.alive[w.peak];
    tell(&w, fits);
  }
  r->own = &w;
  return emit(r);
}

const md_pass md_pass_recompute = {
    .name = "recompute",
    .doc = "computes values again rather than keep them, where memory is limited",
    .needs = MD_NEEDS_EXPANDED | MD_NEEDS_REGIONS,
    .bitwise = true,
    .required = true,
    .run = run,
};
