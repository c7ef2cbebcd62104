// SPDX-License-Identifier: Apache-2.0
// A wish to stop, from outside. The handler only notes the signal; the loop asks between steps.
#include "runtime/train/train.h"

#include <signal.h>
#include <stdlib.h>

// A reader of messages that went away (`| head`) says nothing about the run.
static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGPIPE};
enum { NUM_SIGNALS = MD_COUNT(signals) };
// A handler has no other way to speak: the one variable that outlives a call. Signals belong to the
// process, so two runs in one process stop together.
static volatile sig_atomic_t asked;

struct md_stop {
  struct sigaction before[NUM_SIGNALS];
};

static void note(int signal) { asked = signal; }

md_stop *md_stop_create(void) {
  md_stop *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  asked = 0;
  // Reset after the first: whoever sends a second one wants out at once.
  struct sigaction a = {.sa_handler = note, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
  sigemptyset(&a.sa_mask);
  for (int i = 0; i < NUM_SIGNALS; i++) {
    sigaction(signals[i], NULL, &s->before[i]);
    a.sa_handler = signals[i] == SIGPIPE ? SIG_IGN : note;
    // Whoever started us wants it so: nohup, or a script that runs us in the background.
    if (s->before[i].sa_handler != SIG_IGN) sigaction(signals[i], &a, NULL);
  }
  return s;
}

void md_stop_destroy(md_stop *s) {
  if (!s) return;
  for (int i = 0; i < NUM_SIGNALS; i++) sigaction(signals[i], &s->before[i], NULL);
  free(s);
}

int md_stop_asked(const md_stop *s) { return s ? asked : 0; }
