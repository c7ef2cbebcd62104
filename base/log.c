// SPDX-License-Identifier: Apache-2.0
// Log by topic, to stderr. A line is written in one piece, so lines of threads do not mix.
#include "base/log.h"

#include "base/base.h"

#include <stdarg.h>
#include <string.h>

static const char *const topic_names[MD_NUM_TOPICS + 1] = {
    "config", "graph", "passes", "fusion", "codegen", "cache", "mem", "exec", "data", "ckpt", "all",
};
static const char *const level_names[] = {"warn", "info", "debug"};

// The only state: set once while one thread runs, then only read. Zero is MD_LEVEL_WARN.
static md_level levels[MD_NUM_TOPICS];

static int find(const char *word, size_t len, const char *const *names, int num_names) {
  for (int i = 0; i < num_names; i++)
    if (strlen(names[i]) == len && !strncmp(word, names[i], len)) return i;
  return -1;
}

static bool refuse(const char *kind, const char *word, size_t len, const char *const *names,
                   int num_names, char *why, int why_size) {
  char found[64], shown[64];
  md_text t = {0};
  snprintf(found, sizeof found, "%.*s", (int)MD_MIN(len, sizeof found - 1), word);
  md_put(&t, "unknown log %s '%s'; known are", kind, md_clean(found, shown, sizeof shown));
  for (int i = 0; i < num_names; i++) md_put(&t, " %s", names[i]);
  const char *near = md_nearest(found, names, num_names);
  if (near) md_put(&t, "; did you mean '%s'?", near);
  if (why_size > 0) snprintf(why, (size_t)why_size, "%s", t.s);
  md_text_free(&t);
  return false;
}

bool md_log_setup(const char *spec, char *why, int why_size) {
  md_level wanted[MD_NUM_TOPICS] = {0};
  for (const char *p = spec; *p;) {
    size_t len = strcspn(p, ","), name_len = MD_MIN(strcspn(p, "="), len);
    int topic = find(p, name_len, topic_names, MD_COUNT(topic_names));
    if (topic < 0)
      return refuse("topic", p, name_len, topic_names, MD_COUNT(topic_names), why, why_size);
    int level = MD_LEVEL_INFO;
    if (name_len < len) {
      const char *word = p + name_len + 1;
      size_t word_len = len - name_len - 1;
      level = find(word, word_len, level_names, MD_COUNT(level_names));
      if (level < 0)
        return refuse("level", word, word_len, level_names, MD_COUNT(level_names), why, why_size);
    }
    for (int i = 0; i < MD_NUM_TOPICS; i++)
      if (topic == i || topic == MD_NUM_TOPICS) wanted[i] = (md_level)level;
    p += len;
    if (*p == ',') p++;
  }
  memcpy(levels, wanted, sizeof levels);
  return true;
}

bool md_log_on(md_topic t, md_level l) { return l <= levels[t]; }

void md_log(md_topic t, md_level l, const char *fmt, ...) {
  if (!md_log_on(t, l)) return;
  char text[4096], line[sizeof text];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  // A failure to log is nobody's business: it must not stop a training run.
  fprintf(stderr, "modist[%s] %s: %s\n", topic_names[t], level_names[l],
          md_clean(text, line, sizeof line));
}
