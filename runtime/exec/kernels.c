// SPDX-License-Identifier: Apache-2.0
// Kernels that the artefacts of one folder have in common: a file for each, beside the artefacts.
//
//   r3d50_b32.mdx   r3d50_b64.mdx   kernels/c0123456789abcdef.cubin.z   a zlib stream
//
// A member's name is made of the digest of its content, and so is the file's: two that write one file at
// once write the same, and either may come last. The manifest has size and digest of what is needed: no
// file is believed more than that, and none is read or inflated beyond that size.
#include "runtime/exec/exec.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *file_of(const char *artefact, const char *member, md_arena *a) {
  const char *slash = strrchr(artefact, '/');
  int folder = slash ? (int)(slash - artefact) + 1 : 0;
  return md_format(a, "%.*s" MD_KERNELS "/%s.z", folder, artefact, member);
}

static bool is_what(const md_member *m, md_digest want) {
  md_digest is = md_digest_of(m->data, m->bytes);
  return is.lo == want.lo && is.hi == want.hi;
}

static bool read_file(const char *path, md_digest want, md_member *m, md_arena *a, md_diags *d) {
  char *packed;
  if (!md_file_read(path, md_deflate_bound((int64_t)m->bytes), E0630, d, &packed, &m->file_bytes))
    return false;
  void *to = md_alloc(a, m->bytes + 1);
  bool ok = md_inflate(packed, (int64_t)m->file_bytes, to, (int64_t)m->bytes);
  free(packed);
  m->data = to;
  m->deflate = true;
  return (ok && is_what(m, want)) ||
         md_error(d, E0630, MD_IN_FILE(path),
                  "shared kernel is damaged: it is not what its name says");
}

bool md_kernel_read(const char *artefact, md_digest want, md_member *m, md_arena *a, md_diags *d) {
  const char *path = file_of(artefact, m->name, a);
  if (access(path, F_OK)) {
    md_error(d, E0649, MD_IN_FILE(artefact),
             "kernel '%s' is not in the artefact, and there is no '%s'", m->name, path);
    md_hint(d, "copy the folder '" MD_KERNELS "' along with the artefact, or compile it without "
               "--share-kernels");
    return false;
  }
  if (read_file(path, want, m, a, d)) return true;
  md_hint(d, "modistc compile ... --share-kernels -o %s", artefact);
  return false;
}

static bool save(const char *path, const md_member *m, md_diags *d) {
  int64_t room = md_deflate_bound((int64_t)m->bytes);
  char *packed = md_malloc((size_t)room);
  int64_t len = md_deflate(m->data, (int64_t)m->bytes, packed, room);
  bool ok = md_make_parents(path, d) && md_file_save(path, packed, (size_t)len, d);
  free(packed);
  return ok;
}

bool md_kernels_save(const char *artefact, const md_member *m, int num, md_diags *d) {
  md_arena *a = md_arena_create();
  bool ok = true;
  for (int i = 0; i < num && ok; i++) {
    if (!m[i].shared) continue;
    md_member there = m[i];
    const char *path = file_of(artefact, m[i].name, a);
    // A damaged one is made anew.
    ok = read_file(path, md_digest_of(m[i].data, m[i].bytes), &there, a, NULL) ||
         save(path, &m[i], d);
    md_arena_reset(a);
  }
  md_arena_destroy(a);
  return ok;
}
