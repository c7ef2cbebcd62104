// SPDX-License-Identifier: Apache-2.0
// Decodes the files that a manifest lists and compares with what it says.
//
//   check_files clips DIR   frames and md5_native of each row; the timeline agrees with decoding
//   check_files seek DIR    clips are the same when every frame is decoded and when only some are
//   check_files bad DIR     outcome: accept, reject or either; a refusal is one diagnostic, status 5
//
// Exit 0: all as listed, 1: some are not, 77: DIR is not there.
#include "runtime/video/video.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FIELDS = 32 };
typedef struct row {
  char *field[MAX_FIELDS];
  int num;
} row;

typedef struct result {
  bool ok;
  int64_t frames, damaged;
  char md5[33];
  md_fault fault;
} result;

// Splits one line in place; fields may be quoted. Returns the start of the next line, or NULL.
static char *split(char *p, row *r) {
  r->num = 0;
  for (;;) {
    char *to = p;
    r->field[r->num++] = to;
    bool quoted = *p == '"';
    if (quoted) p++;
    while (*p && (quoted || (*p != ',' && *p != '\n'))) {
      if (quoted && *p == '"') {
        if (p[1] != '"') {
          quoted = false;
          p++;
          continue;
        }
        p++;
      }
      *to++ = *p++;
    }
    char stop = *p;
    *to = '\0';
    if (stop != ',' || r->num == MAX_FIELDS) return stop ? p + 1 : NULL;
    p++;
  }
}

static const char *get(const row *head, const row *r, const char *name) {
  for (int i = 0; i < head->num && i < r->num; i++)
    if (!strcmp(head->field[i], name)) return r->field[i];
  fprintf(stderr, "the manifest has no column %s\n", name);
  exit(1);
}

static result decode(const char *path) {
  result r = {0};
  md_video *v = md_video_open(path, NULL, &r.fault);
  if (!v) return r;
  md_video_md5 *md5 = md_video_md5_create();
  md_frame_info info;
  md_video_step step;
  md_image im = {0};
  r.ok = true;
  while ((step = md_video_next(v, &info, &r.fault)) == MD_VIDEO_FRAME && r.ok) {
    r.frames++;
    md_video_md5_add(md5, v);
    if (r.frames <= 3) r.ok = md_video_rgb(v, r.frames == 1 ? 0 : 128, &im, &r.fault);
  }
  r.ok = r.ok && step == MD_VIDEO_END;
  r.damaged = md_video_damaged(v);
  md_video_md5_text(md5, r.md5);
  md_image_free(&im);
  md_video_close(v);
  return r;
}

// The sample of a small training run: 8x8 and 16x4 clips.
static bool sample(const char *path, md_fault *f, int64_t *frames, int64_t *missing) {
  md_timeline *t = md_timeline_read(path, NULL, f);
  if (!t) return false;
  md_sample_rule rule = {.visual = {8, 8, 32}, .motion = {16, 4, 32}, .flip = 0.5};
  md_sample_out out = {0};
  for (int s = 0; s < MD_NUM_SLOTS; s++) {
    out.clip[s] = calloc(48, 1024);
    if (!out.clip[s]) abort();
  }
  md_gather *g = md_gather_create();
  bool ok = md_gather_sample(g, path, t, &rule, md_sample_key(1, 0, 0, 0), NULL, &out, f);
  md_gather_destroy(g);
  for (int s = 0; s < MD_NUM_SLOTS; s++) free(out.clip[s]);
  *frames = t->num_frames;
  *missing = t->missing + out.missing;
  md_timeline_destroy(t);
  return ok;
}

// A digest of the clips of one sample.
static md_digest clips_digest(md_gather *g, const char *path, const md_timeline *t, uint64_t key) {
  enum { SIZE = 48 };
  static uint8_t clip[MD_NUM_SLOTS][3 * 16 * SIZE * SIZE];
  // Dense, sparse, and visual clips alone: most frames are wanted, few, or very few.
  md_sample_rule rules[] = {{.visual = {8, 2, SIZE}, .motion = {16, 1, SIZE}},
                            {.visual = {8, 8, SIZE}, .motion = {16, 4, SIZE}},
                            {.visual = {8, 8, SIZE}}};
  md_sample_rule rule = rules[key % 3];
  md_sample_out out = {0};
  for (int s = 0; s < MD_NUM_SLOTS; s++) out.clip[s] = clip[s];
  md_fault f;
  memset(clip, 0, sizeof clip);
  if (!md_gather_sample(g, path, t, &rule, key, NULL, &out, &f)) return (md_digest){0};
  return md_digest_of(clip, sizeof clip);
}

static bool check_seek(const char *path) {
  md_fault f;
  md_timeline *t = md_timeline_read(path, NULL, &f);
  if (!t) return printf("FAIL %s: %s\n", path, f.text), false;
  md_gather *g = md_gather_create();
  bool ok = true;
  for (uint64_t key = 1; key <= 6 && t->num_keys > 0; key++) {
    md_timeline whole = *t;
    whole.num_keys = 0;
    md_digest a = clips_digest(g, path, t, key), b = clips_digest(g, path, &whole, key);
    ok = ok && a.lo == b.lo && a.hi == b.hi && a.lo;
  }
  if (!ok) printf("FAIL %s: clips depend on which frames are decoded\n", path);
  md_gather_destroy(g);
  md_timeline_destroy(t);
  return ok;
}

static bool check_clip(const row *head, const row *r, const char *path) {
  result got = decode(path);
  if (!got.ok) return printf("FAIL %s: %s\n", path, got.fault.text), false;
  int64_t want = strtoll(get(head, r, "frames"), NULL, 10);
  bool ok = true;
  if (got.frames != want) {
    printf("FAIL %s: %lld frames, the manifest has %lld\n", path, (long long)got.frames,
           (long long)want);
    ok = false;
  }
  if (strcmp(got.md5, get(head, r, "md5_native"))) {
    const char *codec = get(head, r, "codec");
    bool is_exact = strncmp(codec, "mpeg", 4) && strcmp(codec, "mjpeg") && strcmp(codec, "h263");
    printf("%s %s: md5 of the frames differs (%s)\n", is_exact ? "FAIL" : "note", path, codec);
    ok = ok && !is_exact;
  }
  int64_t frames = 0, missing = 0;
  md_fault f;
  if (!sample(path, &f, &frames, &missing))
    return printf("FAIL %s: sample: %s\n", path, f.text), false;
  if (frames != want || missing) {
    printf("FAIL %s: timeline of %lld frames, %lld missing\n", path, (long long)frames,
           (long long)missing);
    ok = false;
  }
  return ok;
}

static bool check_bad(const row *head, const row *r, const char *path) {
  const char *outcome = get(head, r, "outcome");
  int64_t begin = md_now_ns();
  result got = decode(path);
  bool ok = strcmp(outcome, "either") == 0 || got.ok == (strcmp(outcome, "accept") == 0);
  if (!got.ok) {
    md_diags *d = md_diags_create();
    md_fault_report(&got.fault, path, d);
    ok = ok && md_diags_errors(d) == 1 && md_diags_status(d) == MD_ERR_DATA && got.fault.text[0] &&
         got.fault.code >= E0501 && got.fault.code <= E0502;
    md_diags_destroy(d);
  }
  int64_t frames = 0, missing = 0;
  md_fault f;
  bool sampled = sample(path, &f, &frames, &missing);
  if (sampled != got.ok) {
    printf("FAIL decoding and sampling disagree: %s\n", sampled ? got.fault.text : f.text);
    ok = false;
  }
  printf("%s %-7s %6lld frames %4lld damaged %4lld missing %5.2f s  %s%s%s\n", ok ? "ok  " : "FAIL",
         outcome, (long long)got.frames, (long long)got.damaged, (long long)missing,
         (double)(md_now_ns() - begin) / 1e9, get(head, r, "file"), got.ok ? "" : ": ",
         got.ok ? "" : got.fault.text);
  return ok;
}

int main(int argc, char **argv) {
  bool is_clips = argc == 3 && !strcmp(argv[1], "clips");
  bool is_seek = argc == 3 && !strcmp(argv[1], "seek");
  if (!is_clips && !is_seek && (argc != 3 || strcmp(argv[1], "bad"))) {
    fprintf(stderr, "usage: check_files clips|seek|bad DIR\n");
    return 2;
  }
  char path[4096];
  snprintf(path, sizeof path, "%s/manifest.csv", argv[2]);
  char *text;
  size_t len;
  if (!md_file_read(path, 1 << 24, E0503, NULL, &text, &len)) {
    printf("skipped: %s is not there\n", path);
    return 77;
  }
  row head, r;
  int num = 0, failed = 0;
  for (char *p = split(text, &head); p && *p;) {
    p = split(p, &r);
    snprintf(path, sizeof path, "%s/%s", argv[2], get(&head, &r, "file"));
    bool ok = is_clips  ? check_clip(&head, &r, path)
              : is_seek ? check_seek(path)
                        : check_bad(&head, &r, path);
    num++;
    failed += !ok;
  }
  free(text);
  printf("%d files, %d failed\n", num, failed);
  return failed > 0 || num == 0;
}
