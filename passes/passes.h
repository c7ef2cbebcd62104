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
// What a pass sees: the old graph, a builder into the new one, the map between them.
struct md_rewriter {
  const md_graph *old;
  md_builder b;              // writes the new graph
  md_val *map;               // old value -> new value (MD_NONE while not yet built)
  md_arena *scratch;         // emptied after the pass
  const md_pass_options *options;
  int rewrites;              // counted by the driver
  struct md_site *site; int num_sites, cap_sites;
  const md_pass *pass;
  const md_node *at;         // node being rewritten
};
// A place where the pass could apply: done, or kept for a reason. `--report=fusion` prints them.
typedef struct md_site { const char *pass, *node, *why; bool done; } md_site;

// A rule: returns the new value(s) that replace the first result (several: set r->map itself and
// return the first), or md_keep(...).
typedef md_val (*md_rule)(md_rewriter *r, const md_node *n);
md_val md_keep(md_rewriter *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
md_val md_mapped(md_rewriter *r, md_val old);   // the new value of an old one
md_val md_copy_node(md_rewriter *r, const md_node *n);  // as it is, operands mapped; first result

enum { MD_NEEDS_TARGET = 1 };
struct md_pass {
  const char *name, *doc;
  unsigned needs;
  bool bitwise;                                  // results stay bitwise equal
  md_rule at[MD_NUM_OPS];                        // per-op rules, or
  bool (*run)(md_rewriter *r);                   // the whole graph at once (copies what it keeps)
};
extern const md_pass *const md_passes[];
extern const int md_num_passes;
const md_pass *md_pass_from(const char *name);

// Facts of a target that passes use; back ends fill it.
typedef struct md_target_facts {
  int channel_block;      // layout: 0 keeps row-major
  int max_prologue;       // full-size tensors that a prologue may read
  int64_t alignment;      // of arena offsets, bytes
} md_target_facts;

struct md_pass_options {
  const char *passes;        // "canon,cse,..." or NULL: the standard pipeline of `level`
  const char *disable;       // comma list
  int level;                 // 0: only what is needed to run; 1: no fusion; 2: all (default 2 when < 0)
  const char *print_after;   // pass name or "all"
  bool print_changed, time;
  const char *dump_dir;
  int64_t max_rewrites;      // < 0: no limit
  bool verify_each;
  md_dtype precision;        // MD_F32 or MD_BF16 storage of activations
  md_target_facts facts;
  FILE *print_to;            // where --print-* goes; NULL: stderr
};
typedef struct md_pass_stat { const char *name; double ms; int before, after, rewrites; } md_pass_stat;
typedef struct md_pass_report {
  md_pass_stat *stat; int num_stats;
  md_site *site; int num_sites;
  md_arena *arena;
} md_pass_report;

md_pass_options md_pass_defaults(void);
const char *md_pipeline(int level);   // comma list of the standard pipeline
// Takes g (frees it) and returns the new graph; NULL: reported.
md_graph *md_run_passes(md_graph *g, const md_pass_options *o, md_pass_report *report, md_diags *d);
void md_pass_report_free(md_pass_report *r);

// The passes, one file each, in pipeline order: fuse_infonce.c autodiff.c fold.c canon.c cse.c dce.c
// fold_bn.c precision.c fuse_conv_bn_relu.c fuse_pointwise.c layout.c schedule.c memory.c
extern const md_pass md_pass_fuse_infonce, md_pass_autodiff, md_pass_fold, md_pass_canon, md_pass_cse,
    md_pass_dce, md_pass_fold_bn, md_pass_precision, md_pass_fuse_conv_bn_relu, md_pass_fuse_pointwise,
    md_pass_layout, md_pass_schedule, md_pass_memory;

// --- memory.c: what the plan says
typedef struct md_memory_report {
  int64_t arena, states, without_reuse;
  int peak_region;           // region at which the peak stands
} md_memory_report;
void md_memory_of(const md_graph *g, md_memory_report *r);

#endif
