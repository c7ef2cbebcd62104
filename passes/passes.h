// SPDX-License-Identifier: Apache-2.0
// Passes: graph -> graph. The driver owns walk, verifier, timing, dumps and counts; a pass is the
// mathematics. The map of this folder.
#ifndef PASSES_PASSES_H
#define PASSES_PASSES_H

#include "graph/graph.h"

// --- driver.c

typedef struct md_rewriter md_rewriter;
typedef struct md_pass md_pass;
typedef struct md_pass_options md_pass_options;
// A place where a pass could apply: done, or kept for a reason. `--report=fusion` prints them.
typedef struct md_site {
  const char *pass, *node, *why;
  bool done;
} md_site;
// What a pass sees: the old graph, a builder into the new one, the map between them.
struct md_rewriter {
  const md_graph *old;
  md_builder b;       // writes the new graph
  md_val *map;        // old value -> new value (MD_NONE while not yet built)
  md_arena *scratch;  // emptied after the pass
  const md_pass_options *options;
  const md_pass *pass;
  const md_node *at;  // node being rewritten
  int rewrites;       // counted by the driver for rules, by `run` for itself
  int64_t budget;     // rewrites left in the whole pipeline; < 0: no limit
  int region;         // of copied nodes, as numbered by the pass; 0: none
  const char **region_name;
  int num_region_names, cap_region_names;  // [id - 1]
  md_site *site;
  int num_sites, cap_sites;
  md_arena *report;  // texts of sites
  int64_t saved;     // bytes of the peak, by computing again
  void *own;         // what a pass hands to one that it applies
};

// A rule: returns the new value that replaces the first result (several results: it sets r->map
// of the others itself), or md_keep(...), or md_copy_node where the site is no candidate at all.
typedef md_val (*md_rule)(md_rewriter *r, const md_node *n);

enum {
  MD_NEEDS_EXPANDED = 1,    // no op of role meta is left
  MD_NEEDS_NO_REGIONS = 2,  // rewrites across nodes, which regions forbid
  MD_NEEDS_REGIONS = 4,     // every node but leaves lies in a region
};
struct md_pass {
  const char *name, *doc;
  unsigned needs;
  bool bitwise;                 // results stay bitwise equal
  bool required;                // not counted against --max-rewrites
  md_rule at[MD_NUM_OPS];       // per-op rules, or
  bool (*run)(md_rewriter *r);  // the whole graph at once (copies what it keeps)
};
extern const md_pass *const md_passes[];
extern const int md_num_passes;
const md_pass *md_pass_from(const char *name);

// Facts of a target that passes use; back ends fill it.
typedef struct md_target_facts {
  int channel_block;   // layout: 0 keeps row-major
  int half_block;      // taken where that leaves fewer channels empty; 0: never
  bool channels_last;  // one block holds all channels, rounded up to channel_block
  // Three or four taps along h and w, of stride 1, take a quarter of their products (minimal filtering).
  bool filters_taps;
  // Convolutions bring their weights into an order of their own first, and can round them then.
  bool packs_weights;
  // What convolutions of several taps and their gradients read is stored before them, as made on the way each
  // element would be made anew for every tap. But those forward with so many channels behind them make what is of
  // one stored tensor of bf16. 0: what any reads is made on the way.
  int64_t taps_formed;
  // Gradients in bf16 for weights of so many channels on either side read what is stored; 0: none do.
  int64_t stored_wgrad;
  // One region can make both gradients of a 1x1x1 convolution of at most so many weights, in bf16 and in f32.
  int64_t twin_weights, twin_weights_f32;
  // Where stored_wgrad holds, if one side has so many channels and the other a multiple of twice as many; 0:
  // never there.
  int64_t twin_side;
  // Walks of at most so many channels take all channels of a place at once, and so what has one channel there.
  int64_t few_channels;
  // Steps of formulas that a walk may compute again for a byte that it need not move; 0: none.
  int64_t again_work;
  bool pairs;         // two regions that are alike run at once (schedule)
  bool moves_values;  // space_to_depth makes what it moves as fast as it loads it
  int max_prologue;   // full-size tensors that a prologue may read
  int64_t alignment;  // of arena offsets, bytes
} md_target_facts;

// The block in which such a target stores an activation of `channels`; 0: row-major. No half of a whole block is
// empty, so code that walks over whole blocks by halves leaves none of their lanes unwritten. Few channels
// would be mostly padding; that is worth it where they are `multiplied` by vectors of bf16.
int md_layout_block(const md_target_facts *facts, int64_t channels, bool multiplied);

// What a program may need: arena, states, inputs and all else. Back ends fill in `needs`.
typedef struct md_memory_limit md_memory_limit;
struct md_memory_limit {
  int64_t bytes;       // 0: no limit
  int threads;         // of the run; 0: one for each core
  const void *target;  // whoever `needs` is knows what this is
  // Bytes that the program of a planned graph needs; 0: it has none. NULL: its arena alone.
  int64_t (*needs)(const md_graph *planned, const md_memory_limit *limit);
};

struct md_pass_options {
  const char *passes;   // "canon,cse,..." or NULL: the standard pipeline of `level`
  const char *disable;  // comma list
  int level;            // 0: only what is needed to run; 1: no fusion; 2: all (default 2 when < 0)
  const char *print_after;  // pass name or "all"
  bool print_changed, time;
  const char *dump_dir;
  int64_t max_rewrites;  // < 0: no limit
  bool verify_each;
  md_dtype precision;  // MD_F32 or MD_BF16 storage of activations
  md_target_facts facts;
  md_memory_limit memory;
  FILE *print_to;  // where --print-* goes; NULL: stderr
};
typedef struct md_pass_stat {
  const char *name;
  double ms;
  int before, after, rewrites;
} md_pass_stat;
typedef struct md_pass_report {
  md_pass_stat *stat;
  int num_stats, cap_stats;
  md_site *site;
  int num_sites, cap_sites;
  int64_t saved;  // bytes of the peak, by computing again
  md_arena *arena;
} md_pass_report;

md_pass_options md_pass_defaults(void);
const char *md_pipeline(int level);  // comma list of the standard pipeline
// Takes g (frees it) and returns the new graph; NULL: reported.
md_graph *md_run_passes(md_graph *g, const md_pass_options *o, md_pass_report *report, md_diags *d);
void md_pass_report_free(md_pass_report *r);
// What `pass` makes of g, which stays, under the options of r: for a pass that judges by what comes of
// its choices. NULL: reported.
md_graph *md_apply(const md_rewriter *r, const md_pass *pass, const md_graph *g, void *own);

// The passes, one file each, in pipeline order. `regions` (fuse_pointwise.c) gives every node a
// region of its own: what runs without fusion.
extern const md_pass md_pass_fuse_infonce, md_pass_autodiff, md_pass_fold, md_pass_canon,
    md_pass_cse, md_pass_dce, md_pass_fold_bn, md_pass_precision, md_pass_fold_stride,
    md_pass_fuse_conv_bn_relu, md_pass_fuse_pointwise, md_pass_regions, md_pass_layout,
    md_pass_schedule, md_pass_recompute, md_pass_memory;

// --- rewrite.c: the hands of a pass

md_val md_keep(md_rewriter *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// A site where the pass applied / did not; the node is told by name and op.
void md_site_done(md_rewriter *r, const md_node *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void md_site_kept(md_rewriter *r, const md_node *n, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool md_may_rewrite(const md_rewriter *r);           // the budget is not spent
md_val md_mapped(const md_rewriter *r, md_val old);  // the new value of an old one
// The node as it is, operands mapped or given, into region r->region; first result. The copies map
// their results and keep their names, the clone does neither.
md_val md_copy_node(md_rewriter *r, const md_node *n);
md_val md_copy_with(md_rewriter *r, const md_node *n, const md_val *in);
md_val md_clone_node(md_rewriter *r, const md_node *n, const md_val *in);
// Old nodes in order: each but leaves goes to the rule of its op, or to `otherwise`; NULL copies.
bool md_run_rules(md_rewriter *r, const md_rule *rules, md_rule otherwise);
// New nodes stand where the old node n stood.
void md_place_like(md_rewriter *r, const md_node *n);
// All leaves, in order: passes that order nodes anew put them first.
void md_copy_leaves(md_rewriter *r);
void md_copy_region(md_rewriter *r, int region);  // its nodes, leaves left out
// A new region of that name; returns its number, which nodes then get through r->region.
int md_new_region(md_rewriter *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// One called after an old node: its op and the name of its result, if it has one; a gradient of data, which has none,
// after its weights.
int md_new_region_of(md_rewriter *r, const md_node *n);
// Nodes that read value v: reader[first[v]] .. reader[first[v + 1] - 1], ascending, an entry for
// each operand. `kept[v]`: an update or a result reads it.
typedef struct md_readers {
  int *first, *reader;
  bool *kept;
} md_readers;
md_readers md_readers_of(const md_graph *g, md_arena *a);
const char *md_value_text(const md_graph *g, md_val v, md_arena *a);  // "%name" or "%17"

// --- live.c: what lies in memory, from when to when

// Time is counted in regions. Values made in a region and read outside of it need a place; `storage`
// says which of them lie over a state.
typedef struct md_live {
  md_readers readers;
  int *last;        // by value: last region that reads it; num_regions + 1: an update or result
  bool *stored;     // by value
  md_val *storage;  // by value: the state whose buffer it takes, or MD_NONE
  bool *tainted;    // by value: scratch, false between calls
  char *own_index;  // by value, asked about its last region: 0 not yet, 1 yes, 2 no
} md_live;
md_live md_live_of(const md_graph *g, md_arena *a);
// Region `region` reads x and writes y only at equal indices, so that y may lie over x.
bool md_same_index(const md_graph *g, md_live *live, int region, md_val x, md_val y);
int md_region_of(const md_node *n);  // leaves lie in no region, wherever they stand
int64_t md_place_bytes(const md_graph *g, md_val v, int64_t alignment);

// --- pair.c

// Regions that stand side by side, compute the same of the same types and do not read each other: by region,
// the other one, or 0.
int *md_pairs_of(const md_graph *g, md_arena *a);

// --- memory.c: what the plan says
typedef struct md_memory_report {
  int64_t arena, states, without_reuse;
  int peak_region;  // region at which most bytes are live
} md_memory_report;
void md_memory_of(const md_graph *g, md_memory_report *r);

#endif
