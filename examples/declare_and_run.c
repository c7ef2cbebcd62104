// SPDX-License-Identifier: Apache-2.0
// Declares a line y = x w + b with its squared error, its gradient and a step of descent; compiles
// it, fits it to numbers that a known line made, saves it and runs what was saved.
#include <modist/modist.h>

#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 64, FEATURES = 3 };
static const float true_w[FEATURES] = {1.5F, -2.0F, 0.5F};
static const float true_b = 0.25F;

static void die(const char *what, const char *text) {
  fprintf(stderr, "%s: %s\n", what, text);
  exit(1);
}

// parameter <- parameter - rate * gradient
static void descend(modist_graph *g, modist_val parameter, modist_val gradient) {
  modist_val step = modist_op(g, "affine", &gradient, 1, "scale=0.2");
  modist_val next = modist_op(g, "sub", (modist_val[]){parameter, step}, 2, NULL);
  modist_update(g, parameter, next);
}

static modist_graph *declare(void) {
  modist_graph *g;
  if (modist_graph_create("line", &g) != MD_OK) die("create", modist_last_error());
  modist_val x = modist_input(g, "x", MD_F32, 2, (int64_t[]){ROWS, FEATURES});
  modist_val t = modist_input(g, "t", MD_F32, 2, (int64_t[]){ROWS, 1});
  modist_val w = modist_state(g, "w", MD_F32, 2, (int64_t[]){FEATURES, 1}, "init=normal, b=0.1");
  modist_val b = modist_state(g, "b", MD_F32, 1, (int64_t[]){1}, NULL);

  modist_val xw = modist_op(g, "matmul", (modist_val[]){x, w}, 2, NULL);
  modist_val bs = modist_op(g, "broadcast", &b, 1, "shape=[64,1], axes=[1]");
  modist_val y = modist_op(g, "add", (modist_val[]){xw, bs}, 2, NULL);
  modist_val e = modist_op(g, "sub", (modist_val[]){y, t}, 2, NULL);
  modist_val ee = modist_op(g, "mul", (modist_val[]){e, e}, 2, NULL);
  modist_val sum = modist_op(g, "sum", &ee, 1, NULL);
  modist_val loss = modist_op(g, "affine", &sum, 1, "scale=0.015625");  // the mean of 64

  modist_val gradient = modist_op(g, "gradient", (modist_val[]){loss, w, b}, 3, NULL);
  descend(g, w, modist_result(g, gradient, 0));
  descend(g, b, modist_result(g, gradient, 1));
  modist_return(g, "loss", loss);
  // Builders are sticky: one question at the end is enough.
  if (modist_graph_status(g) != MD_OK) die("declare", modist_graph_error(g));
  return g;
}

static void fill(modist_run *r) {
  float *x = modist_run_input(r, "x", NULL), *t = modist_run_input(r, "t", NULL);
  uint32_t state = 1;
  for (int i = 0; i < ROWS; i++) {
    t[i] = true_b;
    for (int j = 0; j < FEATURES; j++) {
      state = state * 1664525U + 1013904223U;
      x[i * FEATURES + j] = (float)(state >> 8) / (float)(1 << 23) - 1;
      t[i] += x[i * FEATURES + j] * true_w[j];
    }
  }
}

// The loss after the last of `steps`.
static float fit(const modist_program *p, int steps, int report_every) {
  modist_run *r;
  if (modist_run_create(p, NULL, &r) != MD_OK) die("run", modist_last_error());
  fill(r);
  const float *loss = modist_run_result(r, "loss", NULL), *w = modist_run_state(r, "w", NULL);
  const float *b = modist_run_state(r, "b", NULL);
  for (int i = 1; i <= steps; i++) {
    if (modist_run_step(r) != MD_OK) die("step", modist_run_error(r));
    if (report_every && i % report_every == 0)
      printf("step %3d  loss %.6f  w %.3f %.3f %.3f  b %.3f\n", i, (double)*loss, (double)w[0],
             (double)w[1], (double)w[2], (double)b[0]);
  }
  float last = *loss;
  modist_run_destroy(r);
  return last;
}

int main(int argc, char **argv) {
  modist_graph *g = declare();
  modist_program *p;
  if (modist_compile(g, NULL, &p) != MD_OK) die("compile", modist_graph_error(g));
  printf("%d launches, %lld bytes of activations\n", modist_program_launches(p),
         (long long)modist_program_arena_bytes(p));
  float loss = fit(p, 100, 20);

  const char *path = argc > 1 ? argv[1] : "line.mdx";
  if (modist_program_save(p, path) != MD_OK) die("save", modist_program_error(p));
  modist_program_destroy(p);
  modist_graph_destroy(g);
  if (modist_program_load(path, &p) != MD_OK) die("load", modist_last_error());
  float again = fit(p, 100, 0);
  printf("saved to %s, loaded and run: loss %.6f\n", path, (double)again);
  modist_program_destroy(p);
  return loss < 1e-4F && again == loss ? 0 : 1;
}
