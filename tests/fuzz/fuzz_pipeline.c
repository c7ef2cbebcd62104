// SPDX-License-Identifier: Apache-2.0
// Bytes are decisions of the generator of random graphs: each input is a valid graph, which goes
// through passes and compiler and is compared with the interpreter (tests/random). The first eight
// bytes choose inputs and the variant that is compiled beside the full level.
#include "tests/fuzz/fuzz.h"
#include "tests/random/random.h"

#include <stdlib.h>
#include <string.h>

enum { SEEDS = 24, SEED_BYTES = 120, HEAD = 8 };

static void fail(const md_graph *g, const char *kind, const char *text) {
  if (g) md_graph_dump(g);
  fprintf(stderr, "%s: %s\n", kind, text);
  abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint64_t head = 0;
  if (size < HEAD) return 0;
  memcpy(&head, data, sizeof head);
  md_dice dice = md_dice_of(data + HEAD, size - HEAD);
  md_diags *d = md_diags_create();
  md_graph *g = md_random_graph(&dice, MD_GEN_ANY, d);
  if (!g) fail(NULL, "builder", md_diags_text(d));
  md_check_stats stats = {0};
  md_finding f;
  unsigned other = 1 + (unsigned)(head % (uint64_t)(md_num_variants - 1));
  if (!md_check_graph(g, head, 1u | 1u << other, &stats, &f)) fail(g, f.kind, f.text);
  md_graph_destroy(g);
  md_diags_destroy(d);
  return 0;
}

void fuzz_seeds(void (*add)(const char *s, size_t len)) {
  char bytes[SEED_BYTES];
  for (uint64_t i = 0; i < SEEDS; i++) {
    for (uint64_t k = 0; k < SEED_BYTES; k++)
      bytes[k] = (char)md_hash_at(md_hash_key("pipeline", i), k);
    add(bytes, sizeof bytes);
  }
}
