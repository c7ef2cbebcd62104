// SPDX-License-Identifier: Apache-2.0
// Training from files to files, on videos that are made here.
#include "runtime/train/train.h"

#include "base/file.h"
#include "base/safetensors.h"
#include "runtime/train/plan.h"
#include "runtime/video/motion.h"
#include "tests/unit/folder.h"
#include "tests/unit/suite.h"

#include <math.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VIDEOS = 4, MAX_OVERRIDES = 16 };
static char data[64], run_dir[64];

static void make_folder(void) {
  make_empty_folder();
  snprintf(data, sizeof data, "%s/videos", folder);
  snprintf(run_dir, sizeof run_dir, "%s/runs/a", folder);
  md_diags *d = md_diags_create();
  md_shapes_options o = {.folder = data, .videos = VIDEOS, .size = 48, .seconds = 2};
  ck_assert_msg(md_shapes_make(&o, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
}

static const char *in_run(const char *name) {
  char path[64];
  snprintf(path, sizeof path, "runs/a/%s", name);
  return in_folder(path);
}

static int count_text(const char *in, const char *text) {
  int num = 0;
  for (const char *at = in; (at = strstr(at, text)); at += strlen(text)) num++;
  return num;
}

// Trains the tiny model on the made videos; `extra` ends with NULL.
static md_status train(const md_train_options *o, char *const *extra, md_diags *d) {
  char train_data[96], dir[96];
  snprintf(train_data, sizeof train_data, "data.train=%s", data);
  snprintf(dir, sizeof dir, "run.dir=%s", run_dir);
  char *override[MAX_OVERRIDES] = {
      train_data,      dir, "batch=2", "bank.size=4", "bank.init=empty", "clip.frames=2",
      "mclip.frames=2"};
  int num = 7;
  for (; extra && *extra; extra++) override[num++] = *extra;
  md_config *c = md_config_load(NULL, override, num, d);
  ck_assert_msg(c != NULL, "%s", md_diags_text(d));
  md_train_options quiet = *o;
  quiet.quiet = true;
  quiet.engine.passes = md_pass_defaults();
  quiet.engine.no_cache = true;
  md_status status = md_train(c, &quiet, d);
  md_config_destroy(c);
  return status;
}

static int count_lines(const char *path) {
  FILE *f = fopen(path, "r");
  int lines = 0;
  for (int c; f && (c = fgetc(f)) != EOF;) lines += c == '\n';
  if (f) fclose(f);
  return lines;
}

// The number after `"key":` in line `line` (from 0) of the log.
static double logged(const char *key, int line) {
  FILE *f = fopen(in_run("log.jsonl"), "r");
  ck_assert_ptr_nonnull(f);
  char text[2048], quoted[32];
  for (int i = 0; i <= line; i++) ck_assert_ptr_nonnull(fgets(text, sizeof text, f));
  fclose(f);
  snprintf(quoted, sizeof quoted, "\"%s\":", key);
  const char *at = strstr(text, quoted);
  ck_assert_msg(at != NULL, "%s has no %s", text, key);
  return strtod(at + strlen(quoted), NULL);
}

static double element(const md_st_tensor *t, int64_t i) {
  float x;
  memcpy(&x, (const char *)t->data + 4 * i, 4);
  return x;
}

// Every state of the step is there, finite, and the banks hold what was pushed.
static void check_weights(int steps) {
  md_diags *d = md_diags_create();
  md_safetensors *s = md_safetensors_read(in_run("weights.safetensors"), d);
  ck_assert_msg(s != NULL, "%s", md_diags_text(d));
  md_step step = md_step_defaults();
  md_model_from("modist-tiny")->fill(&step);
  step.batch = 2;
  md_graph *g = md_step_graph(&step, d);
  int states = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    if (g->node[i]->op != MD_OP_state) continue;
    states++;
    const md_st_tensor *t = md_safetensors_find(s, g->node[i]->name);
    ck_assert_msg(t != NULL, "%s is not saved", g->node[i]->name);
    for (size_t j = 0; t->dtype == MD_F32 && j < t->bytes / 4; j++)
      ck_assert_msg(isfinite(element(t, (int64_t)j)), "%s", t->name);
  }
  ck_assert_int_eq(states, s->num);
  const md_st_tensor *ids = md_safetensors_find(s, "bank.ids");
  const md_st_tensor *ptr = md_safetensors_find(s, "bank.ptr");
  int32_t id[4], at;
  memcpy(id, ids->data, sizeof id);
  memcpy(&at, ptr->data, 4);
  ck_assert_int_eq(at, 2 * steps % 4);
  for (int i = 0; i < MD_MIN(4, 2 * steps); i++) ck_assert(id[i] >= 0 && id[i] < VIDEOS);
  bool has_format = false, has_step = false, has_config = false;
  char number[16];
  snprintf(number, sizeof number, "%d", steps);
  for (int i = 0; i < s->num_meta; i++) {
    const md_st_meta *m = &s->meta[i];
    has_format |= !strcmp(m->key, "format") && !strcmp(m->value, MD_CHECKPOINT_FORMAT);
    has_step |= !strcmp(m->key, "step") && (steps == 0 || !strcmp(m->value, number));
    has_config |= !strcmp(m->key, "config") && strstr(m->value, "name: 'modist-tiny'");
  }
  ck_assert(has_format && has_step && has_config);
  md_graph_destroy(g);
  md_safetensors_destroy(s);
  md_diags_destroy(d);
}

static void train_three_steps(md_backend backend) {
  make_folder();
  md_diags *d = md_diags_create();
  md_train_options o = {.engine.backend = backend, .max_steps = 3};
  md_status status = train(&o, (char *[]){"epochs=10", NULL}, d);
  ck_assert_msg(status == MD_OK, "%d: %s", (int)status, md_diags_text(d));
  ck_assert_int_eq(count_lines(in_run("log.jsonl")), 3);
  static const char *const terms[] = {"loss_v", "loss_m", "loss_vm", "loss_mv"};
  for (int i = 0; i < 3; i++) {
    double sum = 0;
    for (int t = 0; t < 4; t++) {
      double x = logged(terms[t], i);
      ck_assert(isfinite(x) && x >= 0);
      sum += x;
    }
    ck_assert_double_eq_tol(logged("loss", i), sum, 1e-4);
    ck_assert(logged("std_v", i) > 0);
  }
  // An empty bank offers nothing to confuse the positive with; then two rows, then four.
  ck_assert_double_eq(logged("chance", 0), 0);
  ck_assert_double_eq_tol(logged("loss", 0), 0, 1e-6);
  ck_assert_double_eq_tol(logged("chance", 1), log(3), 1e-9);
  ck_assert(logged("loss", 1) > 0);
  check_weights(3);
  md_diags_destroy(d);
  remove_folder();
}

START_TEST(three_steps_compiled) { train_three_steps(MD_BACKEND_CPU); }
END_TEST
START_TEST(three_steps_interpreted) { train_three_steps(MD_BACKEND_INTERP); }
END_TEST

START_TEST(both_back_ends_agree) {
  double loss[2][3];
  for (int b = 0; b < 2; b++) {
    make_folder();
    md_diags *d = md_diags_create();
    md_train_options o = {.engine.backend = b ? MD_BACKEND_INTERP : MD_BACKEND_CPU, .max_steps = 3};
    ck_assert_int_eq(
        train(&o, (char *[]){"epochs=10", "opt.lr=0.001", "bank.init=random", NULL}, d), MD_OK);
    for (int i = 0; i < 3; i++) loss[b][i] = logged("loss", i);
    md_diags_destroy(d);
    remove_folder();
  }
  // Later steps of a trajectory drift apart in f32 by nature.
  ck_assert_double_eq_tol(loss[0][0], loss[1][0], 1e-4);
  ck_assert_double_eq_tol(loss[0][1], loss[1][1], 1e-2);
}
END_TEST

START_TEST(other_modes_and_optimisers_train) {
  char list[96];
  make_folder();
  snprintf(list, sizeof list, "data.train=%s/videos.csv", data);
  char *const rgb[] = {"model.mode=rgb", NULL};
  char *const ghost[] = {"bn.groups=2",         "opt.name=adamw",     "opt.lr=0.001",
                         "bank.enqueue=before", "loss.cross_neg=key", NULL};
  char *const labels[] = {"model.mode=supervised", "model.classes=8", list, NULL};
  char *const *cases[] = {rgb, ghost, labels};
  for (int i = 0; i < MD_COUNT(cases); i++) {
    md_diags *d = md_diags_create();
    md_train_options o = {.engine.backend = MD_BACKEND_INTERP, .overwrite = true};
    md_status status = train(&o, cases[i], d);
    ck_assert_msg(status == MD_OK, "case %d: %s", i, md_diags_text(d));
    ck_assert(isfinite(logged("loss", 1)));
    md_diags_destroy(d);
  }
  remove_folder();
}
END_TEST

// Three planes of optical flow, from maps; a video without its map is replaced.
START_TEST(flow_maps_are_trained_on) {
  make_folder();
  md_diags *d = md_diags_create();
  char maps[96], key[128], path[160];
  snprintf(maps, sizeof maps, "%s/maps", folder);
  snprintf(key, sizeof key, "data.maps=%s", maps);
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = data}, d);
  md_maps_progress p;
  md_maps_options o = {
      .set = s, .folder = maps, .rule = {MD_MAP_FLOW, .short_side = 32}, .jobs = 2};
  ck_assert_msg(md_maps_make(&o, &p, d) && p.made == VIDEOS, "%s", md_diags_text(d));
  snprintf(path, sizeof path, "%s/shapes_0000.mp4.mmap1", maps);
  ck_assert_int_eq(unlink(path), 0);
  char *extra[] = {key, "mclip.input=flow", "epochs=4", NULL};
  md_status status = train(&(md_train_options){.max_steps = 2}, extra, d);
  ck_assert_msg(status == MD_OK, "%s", md_diags_text(d));
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "left out: motion map cannot be opened"));
  md_diags_destroy(d);
  md_dataset_destroy(s);
  remove_folder();
}
END_TEST

static void make_maps(const char *maps, int clamp) {
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = data}, d);
  md_maps_progress p;
  md_maps_options o = {.set = s,
                       .folder = maps,
                       .rule = {MD_MAP_EDGE, .short_side = 32, .clamp = (float)clamp},
                       .jobs = 1};
  ck_assert_msg(md_maps_make(&o, &p, d) && p.failed == 0, "%s", md_diags_text(d));
  md_dataset_destroy(s);
  md_diags_destroy(d);
}

// Maps that were made otherwise show another motion: within a folder, and from one run to the next.
START_TEST(maps_of_a_run_are_made_in_one_way) {
  make_folder();
  md_diags *d = md_diags_create();
  char maps[96], key[128], command[256];
  snprintf(maps, sizeof maps, "%s/maps", folder);
  snprintf(key, sizeof key, "data.maps=%s", maps);
  char *extra[] = {key, "mclip.input=edge", "epochs=4", NULL};
  make_maps(maps, 10);
  ck_assert_int_eq(train(&(md_train_options){.max_steps = 1}, extra, d), MD_OK);

  snprintf(command, sizeof command, "cp '%s/shapes_0001.mkv.mmap1' '%s/kept'", maps, folder);
  ck_assert_int_eq(system(command), 0);
  make_maps(maps, 20);
  ck_assert_int_eq(train(&(md_train_options){.max_steps = 2, .resume = true}, extra, d),
                   MD_ERR_DATA);
  ck_assert_msg(strstr(md_diags_text(d),
                       "maps: error[E0867]: holds edge maps, lag 5, short side 32, "
                       "scale 0.125, clamp 20\n"
                       "   note: the run was started on edge maps, lag 5, short side 32, "
                       "scale 0.125, clamp 10\n") != NULL,
                "%s", md_diags_text(d));

  md_diags_clear(d);
  snprintf(command, sizeof command, "cp '%s/kept' '%s/shapes_0001.mkv.mmap1'", folder, maps);
  ck_assert_int_eq(system(command), 0);
  md_train_options again = {.max_steps = 1, .overwrite = true};
  ck_assert_int_eq(train(&again, extra, d), MD_ERR_DATA);
  ck_assert_msg(strstr(md_diags_text(d),
                       "shapes_0001.mkv.mmap1: error[E0851]: holds edge maps, lag 5, "
                       "short side 32, scale 0.125, clamp 10") != NULL,
                "%s", md_diags_text(d));
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "hint: 'modistc dataset flow' into this folder"));

  md_diags_clear(d);
  make_maps(maps, 20);  // what the hint says
  ck_assert_msg(train(&again, extra, d) == MD_OK, "%s", md_diags_text(d));
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

// /x/a.mp4 and x/a.mp4 below the data set.
START_TEST(two_videos_do_not_share_a_map) {
  make_folder();
  md_diags *d = md_diags_create();
  md_step step;
  char key[128];
  snprintf(key, sizeof key, "data.maps=%s", folder);
  char *override[] = {key, "mclip.input=edge"};
  md_config *c = md_config_load(NULL, override, 2, d);
  ck_assert(c && md_train_step(c, &step, d));
  md_data_item items[] = {{.path = "/set/x/a.mp4"}, {.path = "/x/a.mp4"}};
  md_dataset set = {.root = "/set", .items = items, .num_items = 2};
  make_maps(folder, 10);  // of other videos
  char command[256];
  snprintf(command, sizeof command,
           "mkdir '%s/x' && cp '%s/shapes_0000.mp4.mmap1' '%s/x/a.mp4.mmap1'", folder, folder,
           folder);
  ck_assert_int_eq(system(command), 0);
  ck_assert_ptr_null(md_train_maps_name(c, &step, &set, d));
  ck_assert_msg(strstr(md_diags_text(d),
                       "x/a.mp4.mmap1: error[E0851]: would be the map of two videos, ") != NULL,
                "%s", md_diags_text(d));
  items[1].path = items[0].path;  // the same video twice
  char *name = md_train_maps_name(c, &step, &set, d);
  ck_assert_ptr_nonnull(name);
  free(name);
  md_config_destroy(c);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

START_TEST(many_more_threads_than_cores_are_warned_of) {
  cpu_set_t before, one;
  CPU_ZERO(&one);
  ck_assert_int_eq(sched_getaffinity(0, sizeof before, &before), 0);
  for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
    if (CPU_ISSET((size_t)i, &before)) CPU_SET((size_t)i, &one);
  ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
  make_folder();
  for (int threads = 2; threads <= 3; threads++) {
    md_diags *d = md_diags_create();
    char key[32];
    snprintf(key, sizeof key, "run.threads=%d", threads);
    md_train_options o = {.max_steps = 1, .overwrite = true};
    ck_assert_int_eq(train(&o, (char *[]){key, NULL}, d), MD_OK);
    ck_assert_msg(count_text(md_diags_text(d),
                             "warning: 3 threads compute, but the process may use 1 core:") ==
                      (threads == 3),
                  "%s", md_diags_text(d));
    md_diags_destroy(d);
  }
  ck_assert_int_eq(sched_setaffinity(0, sizeof before, &before), 0);
  remove_folder();
}
END_TEST

START_TEST(supervised_training_wants_labels) {
  make_folder();
  md_diags *d = md_diags_create();
  md_train_options o = {.engine.backend = MD_BACKEND_INTERP};
  ck_assert_int_eq(train(&o, (char *[]){"model.mode=supervised", NULL}, d), MD_ERR_DATA);
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "E0842"));
  ck_assert_int_ne(access(in_run("config.yaml"), F_OK), 0);  // before anything is written
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

// Broken videos are named with the reason, and another video takes the place: the same in each run.
START_TEST(broken_videos_are_replaced_and_listed) {
  char broken[96], line[512] = "", once[4096] = "", again[4096] = "";
  make_folder();
  snprintf(broken, sizeof broken, "%s/a, broken.mp4", data);
  FILE *f = fopen(broken, "w");
  ck_assert_ptr_nonnull(f);
  fputs("this is no video", f);
  fclose(f);
  for (int i = 0; i < 2; i++) {
    md_diags *d = md_diags_create();
    md_train_options o = {.engine.backend = MD_BACKEND_INTERP, .overwrite = true};
    char *const extra[] = {"epochs=2", i ? "data.workers=3" : "data.workers=0", NULL};
    ck_assert_msg(train(&o, extra, d) == MD_OK, "%s", md_diags_text(d));
    f = fopen(in_run("quarantine.txt"), "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
    ck_assert_ptr_null(fgets(i ? again : once, 2, f));  // one line
    fclose(f);
    ck_assert_msg(strstr(line, "a, broken.mp4\",") && line[0] == '"', "%s", line);
    ck_assert_ptr_nonnull(strstr(line, "is not a video"));
    char *to = i ? again : once;
    for (int k = 0; k < 5; k++)
      snprintf(to + strlen(to), sizeof once - strlen(to), "%.17g ", logged("loss", k));
    md_diags_destroy(d);
  }
  ck_assert_str_eq(once, again);
  // A run without broken videos says so by not leaving the list.
  ck_assert_int_eq(unlink(broken), 0);
  md_diags *d = md_diags_create();
  md_train_options o = {.engine.backend = MD_BACKEND_INTERP, .overwrite = true, .max_steps = 1};
  ck_assert_int_eq(train(&o, NULL, d), MD_OK);
  ck_assert_int_ne(access(in_run("quarantine.txt"), F_OK), 0);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

// The shuffle of ghost batch norm is undone: unperm[perm[i]] = i, and it changes with the step.
START_TEST(orders_are_permutations_and_their_inverses) {
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  s.batch = 8;
  s.bn_groups = 2;
  md_diags *d = md_diags_create();
  md_engine_options eo = {.backend = MD_BACKEND_INTERP, .passes = md_pass_defaults()};
  md_engine *e = md_engine_create(md_step_graph(&s, d), &eo, d);
  ck_assert_msg(e != NULL, "%s", md_diags_text(d));
  int32_t ids[8] = {0}, before[8] = {0};
  md_batch b = {.size = 8, .id = ids};
  bool differs = false;
  for (int step = 0; step < 4; step++) {
    ck_assert(md_train_feed(e, &s, &b, step, 7, 0.1, d));
    const int32_t *perm = md_engine_input(e, "perm", NULL);
    const int32_t *unperm = md_engine_input(e, "unperm", NULL);
    for (int i = 0; i < 8; i++) {
      ck_assert(perm[i] >= 0 && perm[i] < 8);
      ck_assert_int_eq(unperm[perm[i]], i);
    }
    differs |= step > 0 && memcmp(before, perm, sizeof before) != 0;
    memcpy(before, perm, sizeof before);
  }
  ck_assert(differs);
  md_engine_destroy(e);
  md_diags_destroy(d);
}
END_TEST

START_TEST(weights_are_not_overwritten_silently) {
  make_folder();
  md_diags *d = md_diags_create();
  md_train_options o = {.engine.backend = MD_BACKEND_INTERP, .max_steps = 1};
  ck_assert_int_eq(train(&o, NULL, d), MD_OK);
  struct stat before, after;
  ck_assert_int_eq(stat(in_run("weights.safetensors"), &before), 0);
  ck_assert_int_eq(train(&o, NULL, d), MD_ERR_USAGE);
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "E0208"));
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "--overwrite"));
  ck_assert_int_eq(stat(in_run("weights.safetensors"), &after), 0);
  ck_assert(before.st_ino == after.st_ino && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
  md_diags_clear(d);
  o.overwrite = true;
  ck_assert_int_eq(train(&o, NULL, d), MD_OK);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

// A full disk behind the log is told once; training and weights go on.
START_TEST(a_log_on_a_full_disk_stops_nothing) {
  make_folder();
  char command[160];
  snprintf(command, sizeof command, "mkdir -p '%s' && ln -s /dev/full '%s'", run_dir,
           in_run("log.jsonl"));
  ck_assert_int_eq(system(command), 0);
  md_diags *d = md_diags_create();
  md_train_options o = {.engine.backend = MD_BACKEND_INTERP};
  ck_assert_int_eq(train(&o, (char *[]){"epochs=2", NULL}, d), MD_OK);
  ck_assert_msg(strstr(md_diags_text(d), "training goes on without it") != NULL, "%s",
                md_diags_text(d));
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "4 lines of the log are lost"));
  ck_assert_int_eq(count_text(md_diags_text(d), "log.jsonl: warning"), 2);
  check_weights(4);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

// A child trains without end; after two steps it is asked to stop.
static void stop_by(int signal_number) {
  make_folder();
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    md_diags *d = md_diags_create();
    md_train_options o = {.engine.backend = MD_BACKEND_INTERP};
    signal(signal_number, SIG_DFL);  // the test itself may run in the background
    _exit((int)train(&o, (char *[]){"epochs=100000", "opt.lr=0.0001", NULL}, d));
  }
  for (int i = 0; i < 3000 && count_lines(in_run("log.jsonl")) < 2; i++) usleep(10000);
  ck_assert_int_eq(kill(child, signal_number), 0);
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == MD_STOPPED, "status %x", status);
  int steps = count_lines(in_run("log.jsonl"));
  ck_assert_int_ge(steps, 2);
  check_weights(steps);
  remove_folder();
}

START_TEST(sigterm_saves_and_exits_with_75) { stop_by(SIGTERM); }
END_TEST
START_TEST(sigint_saves_and_exits_with_75) { stop_by(SIGINT); }
END_TEST
START_TEST(sighup_saves_and_exits_with_75) { stop_by(SIGHUP); }
END_TEST
START_TEST(sigusr1_saves_and_exits_with_75) { stop_by(SIGUSR1); }
END_TEST

// As under nohup, and as a shell starts what runs in the background.
START_TEST(an_ignored_signal_asks_for_nothing) {
  signal(SIGUSR1, SIG_IGN);
  md_stop *s = md_stop_create();
  raise(SIGUSR1);
  ck_assert_int_eq(md_stop_asked(s), 0);
  md_stop_destroy(s);
  ck_assert(signal(SIGUSR1, SIG_DFL) == SIG_IGN);
  s = md_stop_create();
  raise(SIGUSR1);
  ck_assert_int_eq(md_stop_asked(s), SIGUSR1);
  md_stop_destroy(s);
}
END_TEST

// An absurd learning rate ends in a NaN: told, with the next step to take, and nothing is saved.
START_TEST(a_loss_that_is_not_finite_ends_the_run) {
  make_folder();
  md_diags *d = md_diags_create();
  md_train_options o = {.engine.backend = MD_BACKEND_INTERP};
  md_status status = train(&o,
                           (char *[]){"epochs=20", "opt.lr=1000", "opt.wd=10", "sched=constant",
                                      "bank.init=random", "loss.tau=0.0001", NULL},
                           d);
  ck_assert_msg(status == MD_ERR_NUMERIC, "%d: %s", (int)status, md_diags_text(d));
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "E0841"));
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "--check-nan"));
  ck_assert_int_ne(access(in_run("weights.safetensors"), F_OK), 0);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

START_TEST(a_dry_run_writes_nothing) {
  make_folder();
  md_diags *d = md_diags_create();
  fflush(stdout);
  int kept = dup(STDOUT_FILENO);
  char path[64];
  snprintf(path, sizeof path, "%s/shown", folder);
  ck_assert_ptr_nonnull(freopen(path, "w", stdout));
  md_status status = train(&(md_train_options){.dry_run = true}, NULL, d);
  fflush(stdout);
  dup2(kept, STDOUT_FILENO);
  close(kept);
  ck_assert_int_eq(status, MD_OK);
  char *text;
  size_t len;
  ck_assert(md_file_read(path, 1 << 16, E0206, d, &text, &len));
  static const char *const shown[] = {"19496 parameters",
                                      "GFLOP",
                                      "activations",
                                      "banks",
                                      "4 videos, 8.0 s, 0 unreadable",
                                      "2.00 steps an epoch",
                                      "s a step",
                                      "GFLOP/s in a convolution",
                                      "steps of",
                                      "bound by"};
  for (int i = 0; i < MD_COUNT(shown); i++)
    ck_assert_msg(strstr(text, shown[i]) != NULL, "no '%s' in\n%s", shown[i], text);
  free(text);
  ck_assert_int_ne(access(run_dir, F_OK), 0);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

// Decoding runs beside the step, on the same cores.
START_TEST(what_bounds_a_run) {
  static const struct {
    double arithmetic, memory, launch, step, decode;
    int threads, workers, cores;
    double wall;
    md_bound bound;
  } rows[] = {{2, 1, 0, 4, 1, 1, 1, 8, 4, MD_BOUND_ARITHMETIC},
              {1, 2, 0, 4, 1, 1, 1, 8, 4, MD_BOUND_MEMORY},
              {2, 1, 0, 4, 9, 1, 1, 8, 9, MD_BOUND_DECODING},
              {2, 1, 0, 4, 9, 1, 3, 8, 4, MD_BOUND_ARITHMETIC},
              {2, 1, 0, 4, 9, 2, 3, 2, 8.5, MD_BOUND_CORES},
              {2, 1, 0, 4, 3, 2, 0, 8, 7, MD_BOUND_ARITHMETIC},
              {2, 1, 0, 4, 5, 2, 0, 8, 9, MD_BOUND_DECODING},
              // On a GPU no thread computes.
              {1, 1, 2, 4, 1, 0, 1, 2, 4, MD_BOUND_LAUNCHES},
              {2, 1, 1, 4, 6, 0, 2, 2, 4, MD_BOUND_ARITHMETIC},
              {2, 1, 1, 4, 20, 0, 8, 2, 10, MD_BOUND_CORES},
              {1, 2, 1, 4, 20, 0, 2, 8, 10, MD_BOUND_DECODING}};
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_estimate e = {.cores = rows[i].cores,
                     .threads = rows[i].threads,
                     .arithmetic_s = rows[i].arithmetic,
                     .memory_s = rows[i].memory,
                     .launch_s = rows[i].launch,
                     .step_s = rows[i].step,
                     .decode_s = rows[i].decode};
    md_bound bound;
    ck_assert_double_eq(md_step_wall(&e, rows[i].workers, &bound), rows[i].wall);
    ck_assert_int_eq(bound, rows[i].bound);
  }
}
END_TEST

START_TEST(made_videos_are_the_same_each_time) {
  make_folder();
  char again[80], command[200];
  snprintf(again, sizeof again, "%s/again", folder);
  md_diags *d = md_diags_create();
  md_shapes_options o = {.folder = again, .videos = VIDEOS, .size = 48, .seconds = 2};
  ck_assert(md_shapes_make(&o, d));
  snprintf(command, sizeof command, "diff -r '%s' '%s'", data, again);
  ck_assert_int_eq(system(command), 0);
  ck_assert(!md_shapes_make(&o, d));  // never into a set that is there
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "E0211"));
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

SUITE_MAIN("train", three_steps_compiled, three_steps_interpreted, both_back_ends_agree,
           other_modes_and_optimisers_train, flow_maps_are_trained_on,
           maps_of_a_run_are_made_in_one_way, two_videos_do_not_share_a_map,
           many_more_threads_than_cores_are_warned_of, supervised_training_wants_labels,
           broken_videos_are_replaced_and_listed, orders_are_permutations_and_their_inverses,
           weights_are_not_overwritten_silently, a_log_on_a_full_disk_stops_nothing,
           sigterm_saves_and_exits_with_75, sigint_saves_and_exits_with_75,
           sighup_saves_and_exits_with_75, sigusr1_saves_and_exits_with_75,
           an_ignored_signal_asks_for_nothing, a_loss_that_is_not_finite_ends_the_run,
           a_dry_run_writes_nothing, what_bounds_a_run, made_videos_are_the_same_each_time)
