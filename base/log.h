// SPDX-License-Identifier: Apache-2.0
// Log by topic: MODIST_LOG=passes,cache=debug. Quiet by default; warnings always show. stderr only.
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

// clang-format off
typedef enum md_topic {
  MD_LOG_CONFIG, MD_LOG_GRAPH, MD_LOG_PASSES, MD_LOG_FUSION, MD_LOG_CODEGEN, MD_LOG_CACHE,
  MD_LOG_MEM, MD_LOG_EXEC, MD_LOG_DATA, MD_LOG_CKPT, MD_NUM_TOPICS
} md_topic;
// clang-format on
typedef enum md_level { MD_LEVEL_WARN, MD_LEVEL_INFO, MD_LEVEL_DEBUG } md_level;

// Takes "topic[=level],...", level warn|info|debug, default info; false and a text on an unknown word.
bool md_log_setup(const char *spec, char *why, int why_size);
bool md_log_on(md_topic t, md_level l);
void md_log(md_topic t, md_level l, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
