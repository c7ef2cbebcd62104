// SPDX-License-Identifier: Apache-2.0
// What the files of fuse-pointwise share: groups of nodes that become stream regions.
#ifndef PASSES_FUSE_POINTWISE_H
#define PASSES_FUSE_POINTWISE_H

#include "passes/passes.h"

enum {
  MD_MAX_GROUP = 48,     // nodes of a group; code grows with them
  MD_SMALL_WALK = 4096,  // elements of a shape whose groups go together
};

typedef struct md_streams {
  md_rewriter *r;
  const md_graph *g;
  md_readers readers;
  int *order, *pos;           // node -> place and back, reductions moved up
  int *root;                  // node: root of its group, -1: in none
  int *size;                  // root: nodes of the group
  int *first, *next;          // root: list of members, by place
  bool *mapped;               // node: a view that its readers copy
  bool *channel;              // node: such a view, of other channels of the same place
  bool *widened;              // node: a cast that others copy
  bool *again;                // node: other groups make it again
  struct md_made *made;       // what they make and read for that
  int *fold;                  // root: the space_to_depth that takes the group, -1: none
  const md_shape **space;     // root: the shape it walks, with most channels
  bool *mixed;                // root: so that some members have one channel, others more
  const md_node **reduction;  // root: a reduction of the group, or NULL
} md_streams;

// Where it will be emitted, at the earliest, as in `pos`.
int md_place_of(const md_streams *f, int node);
// Whose a node will be: the root of its group, -1 - its region, or -1: alone.
int md_home_of(const md_streams *f, int node);
// Is what n makes read there, perhaps a channel of it?
bool md_is_read_in(const md_streams *f, const md_node *n, int home);

void md_list_members(md_streams *f);  // first and next, as root says

// --- fuse_pointwise_merge.c

void md_merge_groups(md_streams *f);

// --- fuse_pointwise_again.c

// Which nodes are made again by the groups that read them; groups are complete then.
void md_find_again(md_streams *f);

#endif
