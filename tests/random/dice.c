// SPDX-License-Identifier: Apache-2.0
// Decisions. Bytes that run out become zeros, so that every input of a fuzzer is a graph.
#include "tests/random/random.h"

md_dice md_dice_seeded(uint64_t seed) { return (md_dice){.key = md_hash_key("graph", seed)}; }

md_dice md_dice_of(const uint8_t *data, size_t len) { return (md_dice){.data = data, .len = len}; }

int64_t md_roll(md_dice *d, int64_t sides) {
  if (!d->data) return (int64_t)(md_hash_at(d->key, d->i++) % (uint64_t)sides);
  int64_t x = 0;
  for (int64_t most = 1; most < sides; most *= 256) {
    x = x * 256 + (d->at < d->len ? d->data[d->at] : 0);
    d->at++;
  }
  return x % sides;
}
