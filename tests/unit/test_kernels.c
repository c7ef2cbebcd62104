// SPDX-License-Identifier: Apache-2.0
// Kernels that artefacts share: the files of the folder beside them. No CUDA is needed: any bytes do.
#include "base/file.h"
#include "edited.h"
#include "exec_fixture.h"
#include "suite.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/modist-kernels-XXXXXX";
static char artefact[64];

static const char *file_of(md_arena *a, const char *member) {
  return md_format(a, "%s/kernels/%s.z", folder, member);
}

static void write_file(const char *path, const void *data, size_t len) {
  FILE *f = fopen(path, "we");
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(data, 1, len, f), len);
  ck_assert_int_eq(fclose(f), 0);
}

enum { BYTES = 5000 };
static const char *some_bytes(void) {
  static char bytes[BYTES];
  for (int i = 0; i < BYTES; i++) bytes[i] = (char)(i / 9 * 7);
  return bytes;
}

static md_member member_of(const char *name) {
  return (md_member){.name = name, .data = some_bytes(), .bytes = BYTES, .shared = true};
}

static md_digest digest_of(const md_member *m) { return md_digest_of(m->data, m->bytes); }

// Is it there as it was saved?
static bool comes_back(const md_member *saved, md_diags *d) {
  md_arena *a = md_arena_create();
  md_member m = {.name = saved->name, .bytes = saved->bytes};
  bool ok = md_kernel_read(artefact, digest_of(saved), &m, a, d);
  if (ok) ck_assert_int_eq(memcmp(m.data, saved->data, saved->bytes), 0);
  md_arena_destroy(a);
  return ok;
}

START_TEST(what_is_shared_is_written_once_and_comes_back) {
  md_arena *a = md_arena_create();
  md_member m[] = {member_of("c0.cubin"), member_of("c1.ptx"), member_of("c2.cubin")};
  m[1].shared = false;
  ck_assert(md_kernels_save(artefact, m, 3, NULL));
  ck_assert(comes_back(&m[0], NULL));
  ck_assert(comes_back(&m[2], NULL));
  ck_assert_int_ne(access(file_of(a, "c1.ptx"), F_OK), 0);
  struct stat before, after;
  ck_assert_int_eq(stat(file_of(a, "c0.cubin"), &before), 0);
  ck_assert_int_lt(before.st_size, BYTES / 4);
  ck_assert(md_kernels_save(artefact, m, 3, NULL));
  ck_assert_int_eq(stat(file_of(a, "c0.cubin"), &after), 0);
  ck_assert_uint_eq(before.st_ino, after.st_ino);
  md_arena_destroy(a);
}
END_TEST

START_TEST(an_artefact_without_folder_in_its_path_has_its_kernels_here) {
  char *old = get_current_dir_name();
  md_arena *a = md_arena_create();
  md_member m = member_of("c3.cubin"), read = {.name = m.name, .bytes = m.bytes};
  ck_assert_int_eq(chdir(folder), 0);
  ck_assert(md_kernels_save("x.mdx", &m, 1, NULL));
  ck_assert(md_kernel_read("x.mdx", digest_of(&m), &read, a, NULL));
  ck_assert_int_eq(chdir(old), 0);
  ck_assert(comes_back(&m, NULL));
  free(old);
  md_arena_destroy(a);
}
END_TEST

START_TEST(a_missing_kernel_is_named_with_its_folder) {
  md_arena *a = md_arena_create();
  md_diags *d = md_diags_create();
  md_member m = member_of("c4.cubin");
  ck_assert(!comes_back(&m, d));
  ck_assert_int_eq(md_diags_status(d), MD_ERR_DATA);
  ck_assert_str_eq(
      md_diags_text(d),
      md_format(a,
                "%s: error[E0649]: kernel 'c4.cubin' is not in the artefact, and there is no '%s'\n"
                "   hint: copy the folder 'kernels' along with the artefact, or compile it without "
                "--share-kernels\n",
                artefact, file_of(a, "c4.cubin")));
  md_diags_destroy(d);
  md_arena_destroy(a);
}
END_TEST

// A file that says the same otherwise is the kernel all the same; none that says something else is.
START_TEST(every_flip_and_cut_is_found) {
  md_arena *a = md_arena_create();
  md_diags *d = md_diags_create();
  md_member m = member_of("c5.cubin");
  const char *path = file_of(a, m.name);
  char *bytes;
  size_t len;
  ck_assert(md_kernels_save(artefact, &m, 1, NULL));
  ck_assert(md_file_read(path, 1 << 20, E0601, NULL, &bytes, &len));
  int refused = 0;
  for (size_t i = 0; i < len; i++) {
    bytes[i] ^= (char)(1 << i % 8);
    write_file(path, bytes, len);
    refused += !comes_back(&m, d);
    bytes[i] ^= (char)(1 << i % 8);
    write_file(path, bytes, i);
    ck_assert_msg(!comes_back(&m, d), "cut to %zu bytes", i);
  }
  ck_assert_int_ge(refused, (int)len - 1);  // bits behind the end of the stream say nothing
  ck_assert_int_eq(md_diags_status(d), MD_ERR_DATA);
  md_diags_clear(d);
  write_file(path, bytes, len / 2);
  ck_assert(!comes_back(&m, d));
  ck_assert_str_eq(
      md_diags_text(d),
      md_format(a,
                "%s: error[E0630]: shared kernel is damaged: it is not what its name says\n"
                "   hint: modistc compile ... --share-kernels -o %s\n",
                path, artefact));
  free(bytes);
  md_diags_destroy(d);
  md_arena_destroy(a);
}
END_TEST

START_TEST(another_kernel_under_the_name_is_refused_and_made_anew) {
  md_arena *a = md_arena_create();
  md_member m = member_of("c6.cubin"), other = m;
  char bytes[BYTES];
  memcpy(bytes, m.data, BYTES);
  bytes[BYTES / 2] ^= 1;
  other.data = bytes;
  ck_assert(md_kernels_save(artefact, &other, 1, NULL));
  ck_assert(!comes_back(&m, NULL));
  ck_assert(md_kernels_save(artefact, &m, 1, NULL));
  ck_assert(comes_back(&m, NULL));
  md_arena_destroy(a);
}
END_TEST

START_TEST(a_file_larger_than_any_such_kernel_is_not_read) {
  md_arena *a = md_arena_create();
  md_diags *d = md_diags_create();
  md_member m = member_of("c7.cubin");
  ck_assert(md_kernels_save(artefact, &m, 1, NULL));
  ck_assert_int_eq(truncate(file_of(a, m.name), (off_t)1 << 40), 0);
  ck_assert(!comes_back(&m, d));
  ck_assert(strstr(md_diags_text(d), "error[E0630]: file is too large"));
  md_diags_destroy(d);
  md_arena_destroy(a);
}
END_TEST

START_TEST(a_folder_that_cannot_be_made_is_reported) {
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  md_member m = member_of("c8.cubin");
  const char *base = md_format(a, "%s/taken", folder);
  ck_assert_int_eq(mkdir(base, 0700), 0);
  write_file(md_format(a, "%s/kernels", base), "", 0);
  ck_assert(!md_kernels_save(md_format(a, "%s/x.mdx", base), &m, 1, d));
  ck_assert(strstr(md_diags_text(d), "error[E0801]: a folder is needed here, but this is none"));
  md_arena_destroy(a);
  md_diags_destroy(d);
}
END_TEST

// Whoever reads meanwhile finds none or a whole one.
START_TEST(two_may_write_one_kernel_at_once) {
  enum { WRITERS = 2, TIMES = 40 };
  md_arena *a = md_arena_create();
  md_member m = member_of("c9.cubin");
  pid_t child[WRITERS];
  ck_assert(md_kernels_save(artefact, &m, 1, NULL));
  for (int w = 0; w < WRITERS; w++) {
    child[w] = fork();
    ck_assert_int_ge(child[w], 0);
    if (child[w]) continue;
    bool ok = true;
    for (int i = 0; i < TIMES; i++) {
      unlink(file_of(a, m.name));
      ok = md_kernels_save(artefact, &m, 1, NULL) && ok;
    }
    _exit(!ok);
  }
  int damaged = 0, status;
  md_diags *d = md_diags_create();
  for (int i = 0; i < 10 * TIMES; i++) {
    md_diags_clear(d);
    damaged += !comes_back(&m, d) && strstr(md_diags_text(d), "damaged");
  }
  for (int w = 0; w < WRITERS; w++) {
    ck_assert_int_eq(waitpid(child[w], &status, 0), child[w]);
    ck_assert_int_eq(status, 0);
  }
  ck_assert_int_eq(damaged, 0);
  ck_assert(comes_back(&m, NULL));
  ck_assert_int_ne(system(md_format(a, "ls %s/kernels | grep -v '\\.z$'", folder)), 0);
  md_diags_destroy(d);
  md_arena_destroy(a);
}
END_TEST

// --- in a manifest

// A program whose code is shared, with `from` in its manifest as `to`, and an archive that has the code only
// where there are two members. NULL: refused.
static md_program *read_archive(int num, const char *from, const char *to, md_diags *d) {
  md_program *p = fixture(EXEC_KERNELS), *back = md_program_create("");
  md_member code = member_of("ca.cubin"), archive[2] = {{.name = "manifest.json"}}, *m = archive;
  md_text all = {0};
  ck_assert(md_kernels_save(artefact, &code, 1, NULL));
  md_manifest_write(p, &code, 1, &all);
  const char *text = edited(back->arena, all.s, from, to);
  archive[0].data = text;
  archive[0].bytes = strlen(text);
  archive[1] = code;
  back->path = artefact;
  bool ok = md_manifest_read(back, &m, &num, back->arena, d);
  if (ok) {
    ck_assert_int_eq(num, 2);
    ck_assert_str_eq(m[1].name, "ca.cubin");
    ck_assert(m[1].shared);
    ck_assert_int_eq(memcmp(m[1].data, code.data, BYTES), 0);
  }
  md_program_destroy(p);
  md_text_free(&all);
  if (ok) return back;
  md_program_destroy(back);
  return NULL;
}

static md_program *read_edited(const char *from, const char *to, md_diags *d) {
  return read_archive(1, from, to, d);
}

START_TEST(a_manifest_brings_what_is_shared) {
  md_diags *d = md_diags_create();
  md_program *p = read_edited("{", "{", d);
  ck_assert_msg(p != NULL, "%s", md_diags_text(d));
  md_program_destroy(p);
  md_diags_destroy(d);
}
END_TEST

START_TEST(a_manifest_that_asks_for_anything_else_is_refused) {
  static const char *const edits[][2] = {
      {"../ca.cubin", "is not a list of what can be shared"},
      {"/etc/passwd", "is not a list of what can be shared"},
      {"host.so", "is not a list of what can be shared"},
      {"graph.mdg", "is not a list of what can be shared"},
      {".cubin", "is not a list of what can be shared"},
      {"", "is not a list of what can be shared"},
      {"cb.cubin", "error[E0649]: kernel 'cb.cubin' is not in the artefact"},
  };
  static const char *const sizes[][2] = {
      {"0", "is not a list of what can be shared"},
      {"536870913", "is not a list of what can be shared"},
      {"9223372036854775807", "is not a list of what can be shared"},
      {"4999", "error[E0630]: shared kernel is damaged"},
      {"5001", "error[E0630]: shared kernel is damaged"},
      {"-1", "'bytes' is missing or is not a number"},
  };
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  for (int i = 0; i < MD_COUNT(edits) + MD_COUNT(sizes); i++) {
    bool is_size = i >= MD_COUNT(edits);
    const char *const *row = is_size ? sizes[i - MD_COUNT(edits)] : edits[i];
    md_diags_clear(d);
    md_program *p = is_size ? read_edited("\"bytes\":5000", md_format(a, "\"bytes\":%s", row[0]), d)
                            : read_edited("\"ca.cubin\"", md_format(a, "\"%s\"", row[0]), d);
    ck_assert_msg(!p, "'%s' is accepted", row[0]);
    ck_assert_msg(strstr(md_diags_text(d), row[1]), "'%s': %s", row[0], md_diags_text(d));
    ck_assert_int_eq(md_diags_errors(d), 1);
    ck_assert_int_eq(md_diags_status(d), MD_ERR_DATA);
  }
  md_arena_destroy(a);
  md_diags_destroy(d);
}
END_TEST

START_TEST(what_is_not_shared_is_in_the_archive_and_nothing_else) {
  md_diags *d = md_diags_create();
  for (int num = 1; num <= 2; num++) {
    md_diags_clear(d);
    ck_assert_ptr_null(read_archive(num, "\"shared\"", num == 1 ? "\"later\"" : "\"shared\"", d));
    ck_assert(strstr(md_diags_text(d), "'members' is missing or is not what the archive holds"));
  }
  md_diags_destroy(d);
}
END_TEST

// All of them together have the bound that the members of an archive have, and there are as many.
START_TEST(many_rows_do_not_fill_the_memory) {
#define MORE \
  "\"shared\":true},{\"name\":\"cd.cubin\",\"xxh3\":\"00000000000000000000000000000000\","
  md_diags *d = md_diags_create();
  ck_assert_ptr_null(read_edited("\"shared\":true", MORE "\"bytes\":536865913,\"shared\":true", d));
  ck_assert(strstr(md_diags_text(d), "is not a list of what can be shared"));
  md_diags_clear(d);
  ck_assert_ptr_null(read_edited("\"shared\":true", MORE "\"bytes\":536865912,\"shared\":true", d));
  ck_assert(strstr(md_diags_text(d), "error[E0649]"));  // so it would have been read
  md_diags_clear(d);
  md_text rows = {0};
  for (int i = 0; i < MD_MAX_MEMBERS; i++) md_put(&rows, MORE "\"bytes\":1,");
  md_put(&rows, "\"shared\":true");
  ck_assert_ptr_null(read_edited("\"shared\":true", rows.s, d));
  ck_assert(strstr(md_diags_text(d), "'members' is missing or is not short enough"));
  md_text_free(&rows);
  md_diags_destroy(d);
}
END_TEST

// What no reader takes is written by nobody, whether its kernels lie in it or beside it.
START_TEST(a_program_that_could_not_be_read_is_not_written) {
  enum { MOST = MD_MAX_MEMBERS - 2 };  // beside the manifest and the image
  md_diags *d = md_diags_create();
  md_program *p = bare_program();
  p->image = some_bytes();
  p->image_bytes = BYTES;
  p->graph_text = NULL;
  size_t more = (size_t)MD_MAX_INFLATED / 2 + 1;
  char *large = calloc(1, more);
  ck_assert_ptr_nonnull(large);
  p->kernel = MD_NEW_ARRAY(p->arena, md_gpu_kernel, MOST + 1);
  for (int i = 0; i <= MOST; i++)
    p->kernel[i] =
        (md_gpu_kernel){.member = md_format(p->arena, "m%d.cubin", i), .data = "", .bytes = 1};
  const char *path = md_format(p->arena, "%s/large.mdx", folder);
  for (int shared = 0; shared < 2; shared++) {
    bool (*save)(const md_program *, const char *, md_diags *) =
        shared ? md_program_save_sharing : md_program_save;
    p->num_kernels = MOST + 1;
    ck_assert(!save(p, path, d));
    ck_assert_msg(strstr(md_diags_text(d), "error[E0651]: program 'fixture' has 8193 files") !=
                      NULL,
                  "%s", md_diags_text(d));
    ck_assert_int_ne(access(path, F_OK), 0);
    ck_assert_int_ne(access(file_of(p->arena, "m0.cubin"), F_OK), 0);
    md_diags_clear(d);
    p->num_kernels = 2;
    for (int i = 0; i < 2; i++) {
      p->kernel[i].data = large;
      p->kernel[i].bytes = more;
    }
    ck_assert(!save(p, path, d));
    ck_assert(strstr(md_diags_text(d), "and for 512 MiB in all") != NULL);
    md_diags_clear(d);
    for (int i = 0; i < 2; i++) p->kernel[i].bytes = 1;
  }
  free(large);
  for (int i = 0; i < 2; i++) p->kernel[i].data = "";
  p->num_kernels = MOST;
  ck_assert_msg(md_program_save(p, path, d), "%s", md_diags_text(d));
  md_program_destroy(p);
  md_diags_destroy(d);
}
END_TEST

static int run_tests(void) {
  const TTest *const tests[] = {
      what_is_shared_is_written_once_and_comes_back,
      an_artefact_without_folder_in_its_path_has_its_kernels_here,
      a_missing_kernel_is_named_with_its_folder,
      every_flip_and_cut_is_found,
      another_kernel_under_the_name_is_refused_and_made_anew,
      a_file_larger_than_any_such_kernel_is_not_read,
      a_folder_that_cannot_be_made_is_reported,
      two_may_write_one_kernel_at_once,
      a_manifest_brings_what_is_shared,
      a_manifest_that_asks_for_anything_else_is_refused,
      what_is_not_shared_is_in_the_archive_and_nothing_else,
      many_rows_do_not_fill_the_memory,
      a_program_that_could_not_be_read_is_not_written,
  };
  return run_suite("kernels", tests, MD_COUNT(tests));
}

int main(void) {
  if (!mkdtemp(folder)) return EXIT_FAILURE;
  snprintf(artefact, sizeof artefact, "%s/x.mdx", folder);
  int status = run_tests();
  char command[80];
  snprintf(command, sizeof command, "rm -r %s", folder);
  return system(command) ? EXIT_FAILURE : status;
}
