// SPDX-License-Identifier: Apache-2.0
// Kernel texts by hand: found by the word MD_KERNEL at the begin of a line.
#include "tests/simt/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "tests/simt/simt.h"

static void put_path(const char *folder, const char *file, const char *suffix, char path[1024]) {
  const char *source = getenv("MODIST_SOURCE");
  if (!source || !*source) source = SIMT_SOURCE;
  snprintf(path, 1024, "%s/tests/simt/%s/%s%s", source, folder, file, suffix);
}

void dump_path(const char *kernel, char path[1024]) { put_path("dumps", kernel, ".txt", path); }

char *kernels_read(const char *file) {
  char path[1024], *text = NULL;
  put_path("kernels", file, "", path);
  md_diags *d = md_diags_create();
  size_t len;
  if (!md_file_read(path, 1 << 20, E0801, d, &text, &len)) {
    md_diags_print(d, stderr, false);
    text = NULL;
  }
  md_diags_destroy(d);
  return text;
}

// From the "(" in front of a kernel's arguments.
static void read_args(const char *s, Kernel *k) {
  int depth = 0;
  k->num_args = 1;
  for (; *s && !(*s == ')' && depth == 1); s++) {
    depth += (*s == '(') - (*s == ')');
    k->num_args += *s == ',';
    if (!strncmp(s, "MD_TMAP(", 8)) k->tmaps |= 1u << (k->num_args - 1);
  }
}

// "//! how: message"
static void read_head(const char *line, Kernel *k) {
  size_t len = strcspn(line, "\n");
  const char *colon = memchr(line, ':', len);
  size_t how = colon ? (size_t)(colon - line) : len;
  snprintf(k->how, sizeof k->how, " %.*s ", (int)how - 3, line + 3);
  if (how + 2 < len)
    snprintf(k->message, sizeof k->message, "%.*s", (int)(len - how) - 2, colon + 2);
}

int kernels_find(const char *text, Kernel k[MAX_KERNELS]) {
  int num = 0;
  const char *head = NULL;
  for (const char *line = text; *line;) {
    Kernel *to = &k[num];
    if (!strncmp(line, "//!", 3)) head = line;
    *to = (Kernel){0};
    if (sscanf(line, "MD_KERNEL(%d) %47[a-z_0-9](", &to->threads, to->name) == 2) {
      MD_ASSERT(num + 1 < MAX_KERNELS, "too many kernels");
      read_args(strchr(strchr(line, ')'), '('), to);
      if (head) read_head(head, to);
      head = NULL;
      num++;
    }
    line += strcspn(line, "\n");
    line += *line == '\n';
  }
  return num;
}

// A kernel ends with a brace at the begin of a line.
char *kernel_alone(const char *text, const char *name) {
  md_text t = {0};
  bool mine = true;
  for (const char *line = text, *end; *line; line = end) {
    char other[48];
    int threads;
    end = line + strcspn(line, "\n");
    end += *end == '\n';
    if (sscanf(line, "MD_KERNEL(%d) %47[a-z_0-9](", &threads, other) == 2)
      mine = !strcmp(other, name);
    if (mine) md_put_bytes(&t, line, (size_t)(end - line));
    if (*line == '}') mine = true;
  }
  return t.s;
}

int64_t kernel_option(const Kernel *k, const char *name, int64_t otherwise) {
  char key[32], word[32];
  snprintf(key, sizeof key, " %s=", name);
  const char *at = strstr(k->how, key);
  int64_t x;
  if (!at || sscanf(at + strlen(key), "%31[-0-9]", word) != 1) return otherwise;
  MD_ASSERT(md_parse_int(word, &x), "%s: %s", k->name, k->how);
  return x;
}

char *kernels_with_entries(const char *text) {
  Kernel k[MAX_KERNELS];
  md_text t = {0};
  md_put(&t, "%s", text);
  int num = kernels_find(text, k);
  for (int i = 0; i < num; i++) {
    md_put(&t, "void %s_call(void *const *arg);\n", k[i].name);
    md_put(&t, "__attribute__((no_sanitize(\"thread\"))) void %s_call(void *const *arg) {\n",
           k[i].name);
    md_put(&t, "  %s(", k[i].name);
    for (int j = 0; j < k[i].num_args; j++)
      md_put(&t, "%s%sarg[%d]", j ? ", " : "", k[i].tmaps >> j & 1 ? "*(const md_tmap *)" : "", j);
    md_put(&t, ");\n}\n");
  }
  return t.s;
}

uint16_t *kernel_numbers(const char *name, int64_t num, int64_t from) {
  uint16_t *x = simt_buffer(name, num * 2, true);
  simt_writable(x, false);
  uint64_t key = md_hash_key("tensor", 1);
  for (int64_t i = 0; i < num; i++) {
    float f = (float)(int)(md_hash_at(key, (uint64_t)(from + i)) % 31) - 15.0f;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    x[i] = (uint16_t)(u >> 16);
  }
  return x;
}

double kernel_number(uint16_t x) {
  uint32_t u = (uint32_t)x << 16;
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}
