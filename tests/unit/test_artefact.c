// SPDX-License-Identifier: Apache-2.0
// Artefacts, the archives and manifests inside, NumPy files, the runner modist_rt.
#include "base/file.h"
#include "edited.h"
#include "exec_fixture.h"
#include "suite.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

// --- Files in a folder of the test's own

static char folder[] = "/tmp/modist-artefact-XXXXXX";

static const char *in_folder(md_arena *a, const char *name) {
  return md_format(a, "%s/%s", folder, name);
}

// Without the fsync of md_file_save: thousands are written.
static void write_file(const char *path, const void *data, size_t len) {
  FILE *f = fopen(path, "we");
  ck_assert_ptr_nonnull(f);
  ck_assert_uint_eq(fwrite(data, 1, len, f), len);
  ck_assert_int_eq(fclose(f), 0);
}

static md_text read_file(const char *path) {
  md_text t = {0};
  ck_assert(md_file_read(path, 1 << 30, E0601, NULL, &t.s, &t.len));
  return t;
}

static md_program *fixture_with_image(void) {
  md_program *p = fixture(EXEC_KERNELS);
  md_text image = read_file(EXEC_KERNELS);
  void *copy = md_alloc(p->arena, image.len);
  memcpy(copy, image.s, image.len);
  p->image = copy;
  p->image_bytes = image.len;
  md_text_free(&image);
  return p;
}

static const char *saved_fixture(md_arena *a) {
  const char *path = in_folder(a, "good.mdx");
  md_program *p = fixture_with_image();
  ck_assert(md_program_save(p, path, NULL));
  md_program_destroy(p);
  return path;
}

static void run(const md_program *p, float *loss, float *w) {
  md_exec *e = md_exec_create(p, &(md_exec_options){.threads = 2, .seed = 5}, NULL);
  ck_assert_ptr_nonnull(e);
  for (int i = 0; i < 3; i++) {
    set_input(e, i);
    ck_assert(md_exec_step(e, NULL));
  }
  *loss = *(const float *)md_exec_result(e, "loss", NULL);
  memcpy(w, md_exec_state(e, "w", NULL), sizeof(float) * ELEMENTS);
  md_exec_destroy(e);
}

// --- Round trip

START_TEST(loaded_program_computes_the_same_bits) {
  static float w[2][ELEMENTS], loss[2];
  md_arena *a = md_arena_create();
  md_diags *d = md_diags_create();
  md_program *made = fixture(EXEC_KERNELS), *loaded = md_program_load(saved_fixture(a), d);
  ck_assert_msg(loaded != NULL, "%s", md_diags_text(d));
  run(made, &loss[0], w[0]);
  run(loaded, &loss[1], w[1]);
  ck_assert_mem_eq(w[0], w[1], sizeof w[0]);
  ck_assert_mem_eq(&loss[0], &loss[1], sizeof loss[0]);
  ck_assert_str_eq(loaded->graph_text, made->graph_text);
  ck_assert_str_eq(loaded->launch[1].name, "sum");
  ck_assert(loaded->launch[1].bytes == 18432);
  ck_assert_ptr_null(loaded->arg[4].name);
  ck_assert_uint_eq(loaded->graph.hi, 0xFEDCBA9876543210u);
  md_program_destroy(made);
  md_program_destroy(loaded);
  md_diags_destroy(d);
  md_arena_destroy(a);
}
END_TEST

START_TEST(saving_what_was_loaded_gives_the_same_bytes) {
  md_arena *a = md_arena_create();
  const char *first = saved_fixture(a), *second = in_folder(a, "again.mdx");
  md_program *p = md_program_load(first, NULL);
  ck_assert(md_program_save(p, second, NULL));
  md_text x = read_file(first), y = read_file(second);
  ck_assert_uint_eq(x.len, y.len);
  ck_assert_mem_eq(x.s, y.s, x.len);
  // The date is in the archive's headers and nowhere else.
  setenv("SOURCE_DATE_EPOCH", "1700000000", 1);
  ck_assert(md_program_save(p, second, NULL));
  md_text_free(&y);
  y = read_file(second);
  ck_assert_uint_eq(x.len, y.len);
  ck_assert(memcmp(x.s, y.s, x.len));
  md_program *dated = md_program_load(second, NULL);
  ck_assert_ptr_nonnull(dated);
  unsetenv("SOURCE_DATE_EPOCH");
  ck_assert(md_program_save(dated, second, NULL));
  md_text_free(&y);
  y = read_file(second);
  ck_assert_mem_eq(x.s, y.s, x.len);
  md_program_destroy(dated);
  md_program_destroy(p);
  md_text_free(&x);
  md_text_free(&y);
  md_arena_destroy(a);
}
END_TEST

// The loader knows libraries by name, and both are anonymous files.
START_TEST(two_artefacts_have_code_of_their_own) {
  md_arena *a = md_arena_create();
  const char *first = saved_fixture(a), *second = in_folder(a, "other.mdx");
  md_program *p = fixture_with_image();
  uint32_t mark = 0x5EEDFACEu, other = 0x0DDBA11u;
  char *at = memmem(p->image, p->image_bytes, &mark, sizeof mark);
  ck_assert_ptr_nonnull(at);
  memcpy(at, &other, sizeof other);
  ck_assert(md_program_save(p, second, NULL));
  md_program_destroy(p);
  for (int i = 0; i < 3; i++) {
    md_program *x = md_program_load(first, NULL), *y = md_program_load(second, NULL);
    ck_assert_uint_eq(*(uint32_t *)x->lookup(x->code, "image_mark"), mark);
    ck_assert_uint_eq(*(uint32_t *)y->lookup(y->code, "image_mark"), other);
    md_program_destroy(x);
    md_program *z = md_program_load(second, NULL);
    ck_assert_uint_eq(*(uint32_t *)z->lookup(z->code, "image_mark"), other);
    md_program_destroy(y);
    md_program_destroy(z);
  }
  md_arena_destroy(a);
}
END_TEST

// --- Damage

// A copy of the fixture's artefact that is damaged in place: writing thousands of files anew would
// wait for the disk each time.
typedef struct victim {
  md_arena *a;
  md_diags *d;
  const char *path;
  md_text file;
  int fd;
} victim;

static victim victim_create(void) {
  victim v = {.a = md_arena_create(), .d = md_diags_create()};
  v.file = read_file(saved_fixture(v.a));
  v.path = in_folder(v.a, "victim.mdx");
  write_file(v.path, v.file.s, v.file.len);
  v.fd = open(v.path, O_RDWR | O_CLOEXEC);
  ck_assert_int_ge(v.fd, 0);
  return v;
}

static void victim_destroy(victim *v) {
  close(v->fd);
  md_text_free(&v->file);
  md_diags_destroy(v->d);
  md_arena_destroy(v->a);
}

// The file as it is now must be refused with one error of status MD_ERR_DATA. Returns 1 when not.
static int is_accepted(victim *v) {
  md_diags_clear(v->d);
  md_program *p = md_program_load(v->path, v->d);
  bool refused = !p && md_diags_errors(v->d) == 1 && md_diags_status(v->d) == MD_ERR_DATA;
  md_program_destroy(p);
  return !refused;
}

START_TEST(every_flipped_byte_is_found) {
  victim v = victim_create();
  int num_accepted = 0, num_written = 0;
  for (size_t i = 0; i < v.file.len; i++) {
    char flipped = (char)(v.file.s[i] ^ 1 << i % 8);
    num_written += pwrite(v.fd, &flipped, 1, (off_t)i) == 1;
    num_accepted += is_accepted(&v);
    num_written += pwrite(v.fd, &v.file.s[i], 1, (off_t)i) == 1;
  }
  ck_assert_int_eq(num_accepted, 0);
  ck_assert_int_eq(num_written, (int64_t)v.file.len * 2);
  ck_assert(is_accepted(&v));  // nothing is wrong with the file itself
  victim_destroy(&v);
}
END_TEST

START_TEST(every_cut_is_found) {
  victim v = victim_create();
  int num_accepted = 0;
  for (size_t len = v.file.len; len-- > 0;) {
    ck_assert_int_eq(ftruncate(v.fd, (off_t)len), 0);
    num_accepted += is_accepted(&v);
  }
  ck_assert_int_eq(num_accepted, 0);
  victim_destroy(&v);
}
END_TEST

START_TEST(growth_at_either_end_is_found) {
  victim v = victim_create();
  ck_assert_int_eq(pwrite(v.fd, "x", 1, (off_t)v.file.len), 1);
  ck_assert(!is_accepted(&v));
  ck_assert_str_eq(
      md_diags_text(v.d),
      md_format(v.a,
                "%s: error[E0630]: artefact is damaged: its end is missing or does not "
                "fit\n   hint: modistc compile ... -o %s\n",
                v.path, v.path));
  ck_assert_int_eq(pwrite(v.fd, v.file.s, v.file.len, 1), (ssize_t)v.file.len);
  ck_assert(!is_accepted(&v));
  ck_assert(strstr(md_diags_text(v.d), "error[E0630]: not an artefact: it is no zip archive\n"));
  victim_destroy(&v);
}
END_TEST

// The fixture's archive with `from` in the manifest replaced by `to`, all checksums right.
static void write_edited(const char *path, const char *from, const char *to) {
  md_arena *a = md_arena_create();
  md_text file = read_file(saved_fixture(a)), zip = {0};
  md_member *m;
  int num = md_zip_read(path, file.s, file.len, a, &m, NULL);
  ck_assert_int_eq(num, 3);
  const char *manifest = edited(a, md_strndup(a, m[0].data, m[0].bytes), from, to);
  m[0].data = manifest;
  m[0].bytes = strlen(manifest);
  md_zip_write(m, num, &zip);
  write_file(path, zip.s, zip.len);
  md_text_free(&file);
  md_text_free(&zip);
  md_arena_destroy(a);
}

// A target of the architecture that this one is not, what is said, and what is asked for instead.
#if defined(__aarch64__)
#define FOREIGN "cpu:avx2+x86-64-v3", "it is code for x86-64, and this machine is AArch64"
#define WANTED "--target=cpu:aarch64"
#else
#define FOREIGN "cpu:aarch64+armv8-a", "it is code for AArch64, and this machine is x86-64"
#define WANTED "--target=cpu:host"
#endif

// A target of two launches, with what was predicted for them.
#define PREDICTED(list)                                                  \
  "\"inputs\"",                                                          \
      "\"targets\": [{\"target\": \"cuda:sm_80\", \"first_launch\": 0, " \
      "\"num_launches\": 2, \"workspace_bytes\": 0, \"kernels\": [], "   \
      "\"predicted_for\": \"a device\"" list "}], \"inputs\"",           \
      "'predicted_us' is missing or is not a list of times, one for each launch"

typedef struct edit {
  md_code code;
  const char *from, *to, *text;
} edit;
static const edit edits[] = {
    {E0631, "modist.artefact/6", "modist.artefact/1",
     "artefact has format 'modist.artefact/1' and ABI version 1, but "
     "'modist.artefact/6' and 1 are needed here"},
    {E0631, "\"abi\": 1", "\"abi\": 2", "ABI version 2"},
    {E0632, "\"abi\": 1,", "", "manifest.json: 'abi' is missing or is not a number in its range"},
    {E0632, "\"abi\": 1", "\"abi\": 1, \"abi\": 1", "duplicate object key"},
    {E0632, "{", "[", "/manifest.json:2:11: error[E0632]: not valid JSON: "},
    {E0633, "cpu:generic", "cpu:generic+avx9000", "'avx9000' is no feature known here"},
    {E0633, "cpu:generic", FOREIGN},
    {E0633, "cpu:generic", "cuda:sm_80", "artefact is for target 'cuda:sm_80'"},
    {E0632, "\"type\":\"f32\"", "\"type\":\"f33\"", "'type' is missing or is not an element type"},
    {E0632, "\"w\",\"type\":\"f32\",\"shape\":[4096]", "\"w\",\"type\":\"f32\",\"shape\":[4097]",
     "state 'w_ema' copies 'w', which has another shape"},
    {E0632, "\"shape\":[4096]", "\"shape\":[1,1,1,1,1,1,1]", "'shape' is missing"},
    {E0632, "\"shape\":[4096]", "\"shape\":[4611686018427387904,4]", "no possible type"},
    {E0632, "\"shape\":[4096]", "\"shape\":[-4096]", "no possible type"},
    {E0632, "\"offset\":128", "\"offset\":132", "reaches beyond the arena"},
    {E0632, "\"offset\":128", "\"offset\":-8", "'offset' is missing or is not a number"},
    {E0632, "\"offset\":128", "\"offset\":1e3", "'offset' is missing or is not a number"},
    {E0632, "\"in\":\"arena\"", "\"in\":\"stack\"", "'in' is missing or is not a word"},
    {E0632, "\"init\":\"uniform\"", "\"init\":\"randn\"", "'init' is missing or is not a word"},
    {E0632, "\"copies\"", "\"copy\"", "'copies' is missing or is not a list of objects"},
    {E0632, "\"symbol\":\"scale\"", "\"symbol\":\"sc-le\"", "is not made of"},
    {E0632, "\"items\":16", "\"items\":0", "symbol 'scale' has 0 items"},
    {E0632, "graph.mdg", "grabh.mdg", "'members' is missing or is not what the archive holds"},
    {E0632, "\"xxh3\":\"", "\"xxh3\":\"0", "'xxh3' is missing or is not 32 hexadecimal digits"},
    {E0632, "\"graph\": \"fedcba98", "\"graph\": \"fedcbaXX", "'graph' is missing or is not 32"},
    {E0632, PREDICTED("")},
    {E0632, PREDICTED(", \"predicted_us\": [1]")},
    {E0632, PREDICTED(", \"predicted_us\": [1, -1]")},
    {E0632, PREDICTED(", \"predicted_us\": [1, \"2\"]")},
};

START_TEST(a_manifest_that_is_wrong_is_refused_in_one_message) {
  md_arena *a = md_arena_create();
  md_diags *d = md_diags_create();
  const char *path = in_folder(a, "edited.mdx");
  for (int i = 0; i < MD_COUNT(edits); i++) {
    write_edited(path, edits[i].from, edits[i].to);
    md_diags_clear(d);
    md_program *p = md_program_load(path, d);
    const char *text = md_diags_text(d);
    ck_assert_msg(!p, "edit %d was accepted", i);
    ck_assert_int_eq(md_diags_errors(d), 1);
    const md_code_row *code = &md_codes[edits[i].code];
    ck_assert_int_eq(md_diags_status(d), code->status);
    ck_assert_msg(strstr(text, path) && strstr(text, code->name) && strstr(text, edits[i].text),
                  "edit %d: want %s '%s' in '%s'", i, code->name, edits[i].text, text);
  }
  // A key that nobody knows yet does no harm.
  write_edited(path, "\"abi\": 1", "\"abi\": 1, \"later\": [{}]");
  md_program *p = md_program_load(path, NULL);
  ck_assert_ptr_nonnull(p);
  md_program_destroy(p);
  md_diags_destroy(d);
  md_arena_destroy(a);
}
END_TEST

// An archive whose checksums and manifest fit, around code that does not.
START_TEST(code_that_cannot_be_loaded_is_refused) {
  md_arena *a = md_arena_create();
  md_diags *d = md_diags_create();
  const char *path = in_folder(a, "nocode.mdx");
  md_program *p = bare_program();
  p->image = "this is no shared object";
  p->image_bytes = strlen(p->image);
  ck_assert(md_program_save(p, path, d));
  md_program_destroy(p);
  ck_assert_ptr_null(md_program_load(path, d));
  ck_assert_int_eq(md_diags_errors(d), 1);
  ck_assert(strstr(md_diags_text(d), "error[E0634]: host code cannot be loaded: "));
  md_diags_clear(d);

  p = fixture_with_image();
  p->phase[2].symbol = "total_of_all";
  ck_assert(md_program_save(p, path, d));
  md_program_destroy(p);
  p = md_program_load(path, d);
  ck_assert_ptr_null(md_exec_create(p, NULL, d));
  ck_assert_str_eq(md_diags_text(d),
                   md_format(a,
                             "%s: error[E0634]: the code of 'fixture' has no kernel "
                             "'total_of_all'\n",
                             path));
  md_program_destroy(p);
  md_diags_destroy(d);
  md_arena_destroy(a);
}
END_TEST

START_TEST(missing_files_folders_and_other_archives_are_refused) {
  md_arena *a = md_arena_create();
  md_diags *d = md_diags_create();
  const char *path = in_folder(a, "not-there.mdx");
  ck_assert_ptr_null(md_program_load(path, d));
  ck_assert_str_eq(
      md_diags_text(d),
      md_format(a, "%s: error[E0630]: cannot open: No such file or directory\n", path));
  md_diags_clear(d);
  ck_assert_ptr_null(md_program_load(folder, d));
  ck_assert(strstr(md_diags_text(d), "a regular file is needed, but this is a folder"));
  ck_assert_int_eq(md_diags_status(d), MD_ERR_DATA);
  md_diags_clear(d);

  md_text zip = {0};
  md_member m[] = {{.name = "a.txt", .data = "abc", .bytes = 3}, {.name = "b.txt", .data = ""}};
  md_zip_write(m, 2, &zip);
  path = in_folder(a, "other.zip");
  write_file(path, zip.s, zip.len);
  ck_assert_ptr_null(md_program_load(path, d));
  ck_assert_str_eq(md_diags_text(d),
                   md_format(a,
                             "%s: error[E0630]: not an artefact: its first member is 'a.txt', not "
                             "'manifest.json'\n",
                             path));
  md_text_free(&zip);
  md_diags_destroy(d);
  md_arena_destroy(a);
}
END_TEST

START_TEST(an_archive_with_a_name_twice_is_refused) {
  md_arena *a = md_arena_create();
  md_diags *d = md_diags_create();
  md_text zip = {0};
  md_member m[] = {{.name = "a.txt", .data = "abc", .bytes = 3},
                   {.name = "a.txt", .data = "abd", .bytes = 3}},
            *read;
  md_zip_write(m, 2, &zip);
  ck_assert_int_eq(md_zip_read("z", zip.s, zip.len, a, &read, d), -1);
  ck_assert(strstr(md_diags_text(d), "two members have one name"));
  md_text_free(&zip);
  md_diags_destroy(d);
  md_arena_destroy(a);
}
END_TEST

// A text that shrinks, one that does not, and an empty one.
static void deflated_zip(md_text *zip) {
  static char long_text[5000];
  memset(long_text, 'x', sizeof long_text);
  md_member m[] = {
      {.name = "long.txt", .data = long_text, .bytes = sizeof long_text, .deflate = true},
      {.name = "short.txt", .data = "abc", .bytes = 3, .deflate = true},
      {.name = "empty.txt", .data = "", .deflate = true}};
  md_zip_write(m, 3, zip);
}

START_TEST(members_can_be_deflated) {
  md_arena *a = md_arena_create();
  md_member *read;
  md_text zip = {0};
  deflated_zip(&zip);
  ck_assert_int_eq(md_zip_read("z", zip.s, zip.len, a, &read, NULL), 3);
  ck_assert(read[0].deflate && !read[1].deflate && !read[2].deflate);
  ck_assert_uint_eq(read[0].bytes, 5000);
  ck_assert_uint_lt(read[0].file_bytes, 100);
  ck_assert_uint_eq(strspn(read[0].data, "x"), 5000);
  ck_assert_int_eq(memcmp(read[1].data, "abc", 3), 0);
  if (system("unzip -v >/dev/null 2>&1") == 0) {
    const char *path = in_folder(a, "deflated.zip");
    write_file(path, zip.s, zip.len);
    ck_assert_int_eq(system(md_format(a, "unzip -tqq %s >/dev/null", path)), 0);
  }
  md_text_free(&zip);
  md_arena_destroy(a);
}
END_TEST

// Sizes that lie, another method, other bytes in the stream: both headers are changed alike.
START_TEST(deflated_members_that_lie_are_refused) {
  static const struct {
    int local, central, by;  // byte of either header, what is added
  } rows[] = {{22, 24, 1},  {22, 24, -1}, {25, 27, 64}, {18, 20, 1},
              {18, 20, -1}, {8, 10, 1},   {8, 10, -8}};
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_arena *a = md_arena_create();
    md_member *read;
    md_text zip = {0};
    deflated_zip(&zip);
    unsigned char *s = (unsigned char *)zip.s, *end = s + zip.len - 22;
    size_t central = (size_t)end[16] | (size_t)end[17] << 8;
    s[rows[i].local] = (unsigned char)(s[rows[i].local] + rows[i].by);
    s[central + (size_t)rows[i].central] =
        (unsigned char)(s[central + (size_t)rows[i].central] + rows[i].by);
    ck_assert_int_eq(md_zip_read("z", zip.s, zip.len, a, &read, NULL), -1);
    md_text_free(&zip);
    md_arena_destroy(a);
  }
}
END_TEST

START_TEST(other_tools_read_the_archive) {
  md_arena *a = md_arena_create();
  const char *path = saved_fixture(a);
  if (system("unzip -v >/dev/null 2>&1") == 0)
    ck_assert_int_eq(system(md_format(a, "unzip -tqq %s >/dev/null", path)), 0);
  md_text file = read_file(path);
  md_member *m;
  ck_assert_int_eq(md_zip_read(path, file.s, file.len, a, &m, NULL), 3);
  json_t *root = json_loadb(m[0].data, m[0].bytes, JSON_REJECT_DUPLICATES, NULL);
  ck_assert_str_eq(json_string_value(json_object_get(root, "name")), "fixture");
  json_decref(root);
  md_text_free(&file);
  md_arena_destroy(a);
}
END_TEST

START_TEST(inspection_describes_without_loading_code) {
  md_arena *a = md_arena_create();
  const char *path = in_folder(a, "foreign.mdx");
  write_edited(path, "cpu:generic", "cpu:future+avx9000");
  md_json j = {.compact = true};
  ck_assert(md_artefact_inspect(path, &j, NULL));
  json_t *root = json_loadb(j.out.s, j.out.len, JSON_REJECT_DUPLICATES, NULL);
  ck_assert_ptr_nonnull(root);
  ck_assert_str_eq(json_string_value(json_object_get(root, "target")), "cpu:future+avx9000");
  ck_assert(json_is_false(json_object_get(root, "runs_here")));
  ck_assert_uint_eq(json_array_size(json_object_get(root, "launches")), 2);
  const json_t *state = json_array_get(json_object_get(root, "states"), 0);
  ck_assert_str_eq(json_string_value(json_object_get(state, "type")), "f32[4096]");
  json_decref(root);
  md_text_free(&j.out);
  md_arena_destroy(a);
}
END_TEST

// --- NumPy files

START_TEST(npy_files_round_trip_in_every_type) {
  md_arena *a = md_arena_create();
  md_diags *d = md_diags_create();
  const char *path = in_folder(a, "x.npy");
  for (int t = MD_NO_DTYPE + 1; t < MD_NUM_DTYPES; t++) {
    for (int rank = 0; rank < 4; rank++) {
      md_spec s = {.name = "x", .dtype = (md_dtype)t, .rank = rank, .dim = {2, 3, 5}};
      int64_t n = md_spec_elements(&s);
      s.bytes = n * md_dtype_size(s.dtype);
      double from[30] = {0}, to[30] = {0};
      for (int64_t i = 0; i < n; i++) md_element_store(s.dtype, from, i, (double)(i % 7));
      ck_assert(md_npy_write(path, &s, from, d));
      ck_assert_msg(md_npy_read(path, &s, to, d), "%s", md_diags_text(d));
      ck_assert_mem_eq(from, to, (size_t)s.bytes);
      ck_assert(md_element_load(s.dtype, to, n - 1) ==
                (t == MD_BOOL ? (n - 1) % 7 != 0 : (double)((n - 1) % 7)));
    }
  }
  md_diags_destroy(d);
  md_arena_destroy(a);
}
END_TEST

// One infinity among what is expected does not allow everything; what is not finite must be there, and be the same.
START_TEST(what_is_not_finite_is_expected_as_it_is) {
  enum { NUM = 4 };
  static const struct {
    float want[NUM], is[NUM];
    double tolerance;
    bool is_good;
  } rows[] = {
      {{1, 2, INFINITY, 4}, {1, 2, INFINITY, 4}, 0, true},
      {{1, 2, INFINITY, 4}, {1, 2, INFINITY, 4.03F}, 0.01, true},
      {{1, 2, INFINITY, 4}, {1, 2, INFINITY, 5}, 0.01, false},
      {{1, 2, INFINITY, 4}, {1, 2, -INFINITY, 4}, 0.01, false},
      {{1, 2, INFINITY, 4}, {1, 2, 3, 4}, 0.01, false},
      {{1, 2, INFINITY, 4}, {1, 2, NAN, 4}, 0.01, false},
      {{1, 2, NAN, 4}, {1, 2, NAN, 4}, 0, true},
      {{1, 2, NAN, 4}, {1, 2, 3, 4}, 10, false},
      {{1, 2, 3, 4}, {1, 2, NAN, 4}, 10, false},
      {{1, 2, 3, 4}, {1, 2, INFINITY, 4}, HUGE_VAL, false},
      {{NAN, NAN, NAN, NAN}, {0, NAN, NAN, NAN}, 1, false},
  };
  md_arena *a = md_arena_create();
  const char *path = in_folder(a, "x.npy");
  md_spec s = {.name = "x", .dtype = MD_F32, .rank = 1, .dim = {NUM}, .bytes = sizeof rows->want};
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_diags *d = md_diags_create();
    ck_assert(md_npy_write(path, &s, rows[i].want, d));
    bool is = md_npy_expect(path, &s, rows[i].is, rows[i].tolerance, d);
    ck_assert_msg(is == rows[i].is_good, "row %d: %s", i, md_diags_text(d));
    md_diags_destroy(d);
  }
  md_arena_destroy(a);
}
END_TEST

// clang-format off
#define NPY(header) "\x93NUMPY\1\0\x46\0" header "\n"
typedef struct bad_npy { const char *data; size_t len; const char *text; } bad_npy;
#define ROW(data, text) {data, sizeof data - 1, text}
static const bad_npy bad_npys[] = {
  ROW("", "its header cannot be read"),
  ROW("\x93NUMPY\1\0\xff\xff{", "its header cannot be read"),
  ROW("\x93NUMPY\x09\0\1\0\n", "its header cannot be read"),
  ROW(NPY("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }            ") "12345678",
      ""),
  ROW(NPY("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }            ") "1234567",
      "file holds 7 bytes of elements, but its shape needs 8"),
  ROW(NPY("{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }             ") "12345678",
      "in Fortran order"),
  ROW(NPY("{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }            ") "12345678",
      "array is '>f4' [2], but '<f4' for f32[2] is needed by 'x'"),
  ROW(NPY("{'descr': '<f4', 'fortran_order': False, 'shape': (1,2), }           ") "12345678",
      "array is '<f4' [1,2]"),
  ROW(NPY("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)               ") "12345678",
      "header cannot be read"),
  ROW(NPY("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }   ") "12345678",
      "header cannot be read"),
  ROW(NPY("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } import os  ") "12345678",
      "header cannot be read"),
};
// clang-format on

START_TEST(npy_files_that_do_not_fit_are_refused) {
  md_arena *a = md_arena_create();
  md_diags *d = md_diags_create();
  const char *path = in_folder(a, "bad.npy");
  md_spec s = {.name = "x", .dtype = MD_F32, .rank = 1, .dim = {2}, .bytes = 8};
  for (int i = 0; i < MD_COUNT(bad_npys); i++) {
    float x[2] = {0};
    write_file(path, bad_npys[i].data, bad_npys[i].len);
    md_diags_clear(d);
    bool is_good = !bad_npys[i].text[0];
    ck_assert_msg(md_npy_read(path, &s, x, d) == is_good, "row %d: %s", i, md_diags_text(d));
    if (is_good) continue;
    ck_assert_msg(strstr(md_diags_text(d), bad_npys[i].text), "row %d: %s", i, md_diags_text(d));
    ck_assert_int_eq(md_diags_status(d), MD_ERR_DATA);
    ck_assert(x[0] == 0 && x[1] == 0);
  }
  md_diags_destroy(d);
  md_arena_destroy(a);
}
END_TEST

// --- The runner

typedef struct outcome {
  int status;
  char text[8192];
} outcome;

static outcome run_command(md_arena *a, const char *command) {
  outcome o = {0};
  FILE *f = popen(md_format(a, "%s 2>&1", command), "re");
  ck_assert_ptr_nonnull(f);
  size_t n = fread(o.text, 1, sizeof o.text - 1, f);
  o.text[n] = '\0';
  o.status = WEXITSTATUS(pclose(f));
  return o;
}

static outcome run_rt(md_arena *a, const char *args) {
  return run_command(a, md_format(a, MODIST_RT " %s", args));
}

// The line of `text` that starts with `name`, without what depends on time.
static const char *line_of(md_arena *a, const char *text, const char *name) {
  const char *p = strstr(text, name);
  ck_assert_msg(p != NULL, "no '%s' in '%s'", name, text);
  return md_strndup(a, p, strcspn(p, "\n"));
}

START_TEST(runner_runs_and_writes_results) {
  md_arena *a = md_arena_create();
  const char *path = saved_fixture(a), *out = in_folder(a, "y.npy"),
             *trace = in_folder(a, "t.json");
  outcome one = run_rt(a, md_format(a, "%s --steps=4 --threads=1 --seed=3", path));
  outcome two = run_rt(a, md_format(a,
                                    "%s --steps=4 --threads=2 --seed=3 --times --check-nan "
                                    "--trace=%s --output=y=@%s",
                                    path, trace, out));
  ck_assert_msg(one.status == 0 && two.status == 0, "%s%s", one.text, two.text);
  ck_assert_str_eq(line_of(a, one.text, "loss f32[] = "), line_of(a, two.text, "loss f32[] = "));
  ck_assert_str_eq(line_of(a, one.text, "y f32[4096] mean "),
                   line_of(a, two.text, "y f32[4096] mean "));
  ck_assert(strstr(one.text, "4 steps: median "));
  ck_assert(strstr(two.text, "GFLOP/s"));
  static float y[ELEMENTS];
  md_spec s = f32_spec("x", ELEMENTS);
  ck_assert(md_npy_read(out, &s, y, NULL));
  // The result is an input of the next run; with x = 0 and w from the seed, y = w: within [-1, 1).
  outcome fed = run_rt(a, md_format(a, "%s --input=x=%s --output=y=%s", path, out, out));
  ck_assert_msg(fed.status == 0, "%s", fed.text);
  fed = run_rt(a, md_format(a, "%s --input=x=0 --output=y=@%s", path, out));
  ck_assert_msg(fed.status == 0, "%s", fed.text);
  ck_assert(md_npy_read(out, &s, y, NULL));
  int num_outside = 0;
  for (int i = 0; i < ELEMENTS; i++) num_outside += y[i] < 0.15f || y[i] >= 0.35f;
  ck_assert_int_eq(num_outside, 0);
  md_arena_destroy(a);
}
END_TEST

START_TEST(runner_exits_with_the_documented_codes) {
  md_arena *a = md_arena_create();
  const char *good = saved_fixture(a), *foreign = in_folder(a, "edited.mdx"),
             *cut = in_folder(a, "cut.mdx");
  const edit other = {E0633, "cpu:generic", FOREIGN};
  write_edited(foreign, other.from, other.to);
  md_text file = read_file(good);
  write_file(cut, file.s, file.len / 2);
  md_text_free(&file);
  const struct {
    const char *args, *text;
    int status;
  } rows[] = {
      {"--help", "Usage: modist_rt FILE.mdx", 0},
      {"--version", "modist_rt ", 0},
      {md_format(a, "%s --inspect", good), "\"target\": \"cpu:generic\"", 0},
      {"", "error[E0401]: no artefact is given", MD_ERR_USAGE},
      {"--stepps=3 a.mdx", "option '--stepps=3' is not known", MD_ERR_USAGE},
      {"a.mdx --steps=0", "'0' is not a number in range", MD_ERR_USAGE},
      {"a.mdx b.mdx", "'b.mdx' is too much", MD_ERR_USAGE},
      {"a.mdx --output=y=3", "must be a file", MD_ERR_USAGE},
      {md_format(a, "%s --input=X=0", good), "program 'fixture' has no 'X'", MD_ERR_USAGE},
      {md_format(a, "%s --output=los=@/dev/null", good), "did you mean 'loss'?", MD_ERR_USAGE},
      {md_format(a, "%s --input=x=abc", good), "'abc' is neither a number nor FILE.npy",
       MD_ERR_USAGE},
      {foreign, other.text, MD_ERR_MISSING},
      {foreign, "hint: modistc compile ... " WANTED " -o ", MD_ERR_MISSING},
      {cut, "error[E0630]", MD_ERR_DATA},
      {md_format(a, "%s --input=x=@/dev/null", good), "error[E0640]", MD_ERR_DATA},
      {md_format(a, "%s --memory-limit=1K", good), "error[E0803]", MD_ERR_MEMORY},
      {md_format(a, "%s --memory-limit=1GB", good), "'1GB' is no number of bytes such as 1400M",
       MD_ERR_USAGE},
      {md_format(a, "%s --check-nan --input=x=3e38", good),
       "region 'scale' (launch 1 of 2, step 1) made 'y' not finite", MD_ERR_NUMERIC},
      {md_format(a, "%s >/dev/full", good), "", MD_ERR_RUN},
  };
  for (int i = 0; i < MD_COUNT(rows); i++) {
    outcome o = run_rt(a, rows[i].args);
    ck_assert_msg(o.status == rows[i].status && strstr(o.text, rows[i].text),
                  "modist_rt %s: %d, %s", rows[i].args, o.status, o.text);
  }
  md_arena_destroy(a);
}
END_TEST

// Of a later modist: whoever is given it says so, in the same words.
START_TEST(programs_say_that_an_artefact_is_newer) {
  static const char *const commands[] = {MODIST_RT, MODIST_RT " --check", MODIST_RT " --inspect",
                                         MODISTC " run", MODISTC " inspect"};
  md_arena *a = md_arena_create();
  const char *path = in_folder(a, "newer.mdx");
  write_edited(path, "modist.artefact/6", "modist.artefact/7");
  const char *text = md_format(a,
                               "%s: error[E0631]: artefact has format 'modist.artefact/7' and ABI "
                               "version 1, but 'modist.artefact/6' and 1 are needed here\n"
                               "   hint: modistc compile ... -o %s\n",
                               path, path);
  for (int i = 0; i < MD_COUNT(commands); i++) {
    outcome o = run_command(a, md_format(a, "%s %s", commands[i], path));
    ck_assert_msg(o.status == MD_ERR_DATA && !strcmp(o.text, text), "%s: %d, %s", commands[i],
                  o.status, o.text);
  }
  md_arena_destroy(a);
}
END_TEST

static int run_tests(void) {
  const TTest *const tests[] = {
      loaded_program_computes_the_same_bits,
      saving_what_was_loaded_gives_the_same_bytes,
      two_artefacts_have_code_of_their_own,
      every_flipped_byte_is_found,
      every_cut_is_found,
      growth_at_either_end_is_found,
      a_manifest_that_is_wrong_is_refused_in_one_message,
      code_that_cannot_be_loaded_is_refused,
      missing_files_folders_and_other_archives_are_refused,
      an_archive_with_a_name_twice_is_refused,
      other_tools_read_the_archive,
      members_can_be_deflated,
      deflated_members_that_lie_are_refused,
      inspection_describes_without_loading_code,
      npy_files_round_trip_in_every_type,
      what_is_not_finite_is_expected_as_it_is,
      npy_files_that_do_not_fit_are_refused,
      runner_runs_and_writes_results,
      runner_exits_with_the_documented_codes,
      programs_say_that_an_artefact_is_newer,
  };
  return run_suite("artefact", tests, MD_COUNT(tests));
}

int main(void) {
  if (!mkdtemp(folder)) return EXIT_FAILURE;
  int status = run_tests();
  md_arena *a = md_arena_create();
  if (system(md_format(a, "rm -r %s", folder))) status = EXIT_FAILURE;
  md_arena_destroy(a);
  return status;
}
