// SPDX-License-Identifier: Apache-2.0
// A graph ready to run as CUDA kernels: after its passes, with its module, its inputs, what the
// interpreter says, and an image of every buffer. Who runs the launches (the fiber machine here, a
// driver in tests/device) copies the images and hands back what became of them.
#ifndef TESTS_SIMT_PROGRAM_H
#define TESTS_SIMT_PROGRAM_H

#include "codegen/cuda/cuda.h"

typedef struct Image {
  char name[40];
  char *data;  // before the step
  int64_t bytes;
  bool is_set;  // an input or a state
} Image;

typedef struct Program {
  md_graph *g;
  md_cuda_module *m;
  md_interp *ref;  // after its step
  md_diags *diags;
  Image *image;
  int num_images;  // the last is the workspace
  int *image_of;   // by md_val; values that lie at one place share an image
} Program;

// From a text, through the passes of `level`. How inputs are filled says the first letter of their
// name: p positive, n rows of length about 1, k ids of few videos, e the same with empty rows, m all
// one id, r37 labels of rows of 37, l a learning rate, others normal. States begin as they say. NULL:
// reported.
Program *program_create(const char *text, int level, uint64_t seed, md_diags *d);
Program *program_of(md_graph *g, int level, uint64_t seed, md_diags *d);  // takes g
Program *program_with(md_graph *g, int level, md_dtype precision, uint64_t seed, md_diags *d);
// For another architecture than sm_80.
Program *program_for(md_cuda_arch arch, md_graph *g, int level, md_dtype precision, uint64_t seed,
                     md_diags *d);
// The parts of it: leaves are to be written into p->ref, and taken from there before every run.
Program *program_made(md_cuda_arch arch, md_graph *g, const md_pass_options *o, md_diags *d);
void program_take_leaves(Program *p);
// The same with all options but the target's facts, and with leaves that somebody else fills.
typedef void (*program_feed)(void *ctx, const md_node *leaf, md_tensor *to);
Program *program_fed(md_cuda_arch arch, md_graph *g, const md_pass_options *o, program_feed feed,
                     void *ctx, md_diags *d);
// The same as program_for, with the launches of regions one by one, as run_regions needs them.
Program *program_apart(md_cuda_arch arch, md_graph *g, int level, md_dtype precision, uint64_t seed,
                       md_diags *d);
// The same at level 2 with all ways to make its products besides.
Program *program_trials(md_cuda_arch arch, md_graph *g, md_dtype precision, uint64_t seed,
                        md_diags *d);
void program_destroy(Program *p);
// Launches with wgmma that make this op.
int program_wgmmas(const Program *p, md_op op);
// And those whose source TMA copies.
int program_windows(const Program *p, md_op op);
// Where argument a of a launch lies: an image and a place in it.
int program_place(const Program *p, const md_cuda_arg *a, int64_t *offset);
// What a float may be off after the nodes of a region, or of the whole graph (region 0).
double program_tolerance(const Program *p, int region);
bool program_check_value(const Program *p, const char *name, md_val v, const void *data,
                         double tolerance, md_text *why);
// Results and updates, as `data` (by image) holds them, against the interpreter. False: told in `why`.
bool program_check(const Program *p, char *const *data, md_text *why);

#endif
