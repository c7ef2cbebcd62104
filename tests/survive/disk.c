// SPDX-License-Identifier: Apache-2.0
// The disk that forgets.
#include "tests/survive/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SECTOR = 512, MAX_FD = 1024 };

// Bytes at a place; without bytes the file is cut off there.
typedef struct Change {
  int64_t at, len;
  const char *data;
} Change;

typedef struct Name {
  const char *name;
  struct Node *node;
} Name;

// One of the two, or for a rename both, at once.
typedef struct NameChange {
  const char *gone;
  Name added;
} NameChange;

// A file or a folder: what is certain, and what was done to it since.
typedef struct Node {
  bool is_folder;
  char *bytes;
  size_t len;
  Change *change;
  int num_change, cap_change;
  Name *name;
  int num_name, cap_name;
  NameChange *name_change;
  int num_name_change, cap_name_change;
} Node;

struct disk {
  md_arena *arena;
  Node **node;
  int num_node, cap_node;
  Node *root, *open[MAX_FD];
};

// Throws for each thing that is not certain.
typedef struct Dice {
  disk_luck luck;
  uint64_t key, at;
} Dice;

static bool happened(Dice *d) {
  if (d->luck != DISK_ANY) return d->luck == DISK_ALL;
  return md_hash_at(d->key, d->at++) % 2;
}

// --- files

typedef struct Bytes {
  char *s;
  size_t len;
} Bytes;

static void set_len(Bytes *b, size_t len) {
  char *grown = realloc(b->s, len + 1);
  if (!grown) md_out_of_memory(len);
  b->s = grown;
  if (len > b->len) memset(b->s + b->len, 0, len - b->len);
  b->len = len;
}

// A sector that is not there reads as it was, or as zero where the file has grown.
static void apply(Bytes *b, const Change *c, Dice *d) {
  if (!c->data) {
    if (happened(d)) set_len(b, (size_t)c->at);
    return;
  }
  for (int64_t from = c->at, end = c->at + c->len, to; from < end; from = to) {
    to = MD_MIN((from / SECTOR + 1) * SECTOR, end);
    if (!happened(d)) continue;
    if ((size_t)to > b->len) set_len(b, (size_t)to);
    memcpy(b->s + from, c->data + (from - c->at), (size_t)(to - from));
  }
}

static Bytes content(const Node *n, Dice *d) {
  Bytes b = {0};
  set_len(&b, n->len);
  if (n->len) memcpy(b.s, n->bytes, n->len);
  for (int i = 0; i < n->num_change; i++) apply(&b, &n->change[i], d);
  return b;
}

// --- folders

typedef struct Names {
  Name *name;
  int num, cap;
} Names;

static int index_of(const Names *n, const char *name) {
  for (int i = 0; i < n->num; i++)
    if (strcmp(n->name[i].name, name) == 0) return i;
  return -1;
}

static void remove_name(Names *n, const char *name) {
  int i = index_of(n, name);
  if (i >= 0) n->name[i] = n->name[--n->num];
}

static Names names_of(const Node *folder, Dice *d) {
  Names n = {0};
  for (int i = 0; i < folder->num_name; i++) MD_PUSH(n.name, n.num, n.cap, folder->name[i]);
  for (int i = 0; i < folder->num_name_change; i++) {
    const NameChange *c = &folder->name_change[i];
    if (!happened(d)) continue;
    if (c->gone) remove_name(&n, c->gone);
    if (!c->added.name) continue;
    remove_name(&n, c->added.name);
    MD_PUSH(n.name, n.num, n.cap, c->added);
  }
  return n;
}

static Node *find_in(const Node *folder, const char *name) {
  Names n = names_of(folder, &(Dice){.luck = DISK_ALL});
  int i = index_of(&n, name);
  Node *found = i < 0 ? NULL : n.name[i].node;
  free(n.name);
  return found;
}

// The folder that `path` is in, and its last part.
static Node *folder_of(const disk *k, const char *path, const char **name) {
  Node *at = k->root;
  const char *slash;
  for (; at && (slash = strchr(path, '/')); path = slash + 1) {
    char *part = md_strndup(k->arena, path, (size_t)(slash - path));
    at = find_in(at, part);
  }
  *name = path;
  return at;
}

static Node *find(const disk *k, const char *path) {
  const char *name;
  Node *folder = folder_of(k, path, &name);
  return folder && *name ? find_in(folder, name) : folder;  // a folder may end with a slash
}

// --- the calls

static Node *new_node(disk *k, bool is_folder) {
  Node *n = MD_NEW(k->arena, Node);
  n->is_folder = is_folder;
  MD_PUSH(k->node, k->num_node, k->cap_node, n);
  return n;
}

static void change_names(disk *k, const char *gone, const char *added, Node *node) {
  const char *gone_name = NULL, *added_name = NULL;
  Node *from = gone ? folder_of(k, gone, &gone_name) : NULL;
  Node *to = added ? folder_of(k, added, &added_name) : from;
  MD_ASSERT(to && (!from || from == to), "'%s' and '%s' are not in one folder", gone, added);
  NameChange c = {.gone = gone ? md_strdup(k->arena, gone_name) : NULL,
                  .added = {added ? md_strdup(k->arena, added_name) : NULL, node}};
  MD_PUSH(to->name_change, to->num_name_change, to->cap_name_change, c);
}

static void sync_node(Node *n) {
  Dice all = {.luck = DISK_ALL};
  if (n->is_folder) {
    Names now = names_of(n, &all);
    free(n->name);
    n->name = now.name;
    n->num_name = now.num;
    n->cap_name = now.cap;
    n->num_name_change = 0;
    return;
  }
  Bytes now = content(n, &all);
  free(n->bytes);
  n->bytes = now.s;
  n->len = now.len;
  n->num_change = 0;
}

static void open_node(disk *k, const trace_record *r) {
  Node *n = find(k, r->path);
  if (!n) {
    n = new_node(k, false);
    change_names(k, NULL, r->path, n);
  }
  k->open[r->fd] = n;
}

static Node *opened(const disk *k, const trace_record *r) {
  Node *n = r->fd >= 0 && r->fd < MAX_FD ? k->open[r->fd] : NULL;
  MD_ASSERT(n, "descriptor %d is not open", r->fd);
  return n;
}

static void change_file(Node *n, Change c) { MD_PUSH(n->change, n->num_change, n->cap_change, c); }

void disk_do(disk *k, const trace_record *r, const char *data) {
  switch ((trace_op)r->op) {
  case TRACE_OPEN: open_node(k, r); break;
  case TRACE_WRITE: change_file(opened(k, r), (Change){r->at, r->len, data}); break;
  case TRACE_TRUNCATE: change_file(opened(k, r), (Change){.at = r->at}); break;
  case TRACE_SYNC: sync_node(opened(k, r)); break;
  case TRACE_CLOSE: k->open[r->fd] = NULL; break;
  case TRACE_MKDIR: change_names(k, NULL, r->path, new_node(k, true)); break;
  case TRACE_RENAME: change_names(k, r->path, r->to, find(k, r->path)); break;
  case TRACE_LINK: change_names(k, NULL, r->to, find(k, r->path)); break;
  case TRACE_UNLINK: change_names(k, r->path, NULL, NULL); break;
  }
}

disk *disk_create(void) {
  md_arena *a = md_arena_create();
  disk *k = MD_NEW(a, disk);
  k->arena = a;
  k->root = new_node(k, true);
  return k;
}

void disk_destroy(disk *k) {
  for (int i = 0; i < k->num_node; i++) {
    free(k->node[i]->bytes);
    free(k->node[i]->change);
    free(k->node[i]->name);
    free(k->node[i]->name_change);
  }
  free(k->node);
  md_arena_destroy(k->arena);
}

char *disk_read(const disk *k, const char *path, size_t *len) {
  Node *n = find(k, path);
  if (!n || n->is_folder) return NULL;
  Bytes b = content(n, &(Dice){.luck = DISK_ALL});
  *len = b.len;
  return b.s;
}

// --- what is left

static void collect(const Node *n, const char *path, Dice *names, Dice *data, disk_state *s) {
  Names in = names_of(n, names);
  for (int i = 0; i < in.num; i++) {
    const Node *child = in.name[i].node;
    md_text text = {0};
    md_put(&text, "%s/%s", path, in.name[i].name);
    disk_file f = {.path = text.s};
    if (!child->is_folder) {
      Bytes b = content(child, data);
      f.bytes = b.s;
      f.len = b.len;
    }
    MD_PUSH(s->file, s->num, s->cap, f);
    if (child->is_folder) collect(child, text.s, names, data, s);
  }
  free(in.name);
}

disk_state disk_after_loss(const disk *k, disk_luck names, disk_luck data, uint64_t key) {
  disk_state s = {0};
  Dice n = {names, md_hash_key("names", key), 0}, d = {data, md_hash_key("data", key), 0};
  collect(k->root, "", &n, &d, &s);
  return s;
}

md_digest disk_state_digest(const disk_state *s) {
  md_hasher *h = md_hasher_create();
  for (int i = 0; i < s->num; i++) {
    const disk_file *f = &s->file[i];
    md_hasher_add(h, f->path, strlen(f->path) + 1);
    md_hasher_add(h, &f->len, sizeof f->len);
    if (f->bytes) md_hasher_add(h, f->bytes, f->len);
  }
  return md_hasher_end(h);
}

static bool write_file(const char *path, const disk_file *f) {
  FILE *to = fopen(path, "wb");
  if (!to) return false;
  bool ok = fwrite(f->bytes, 1, f->len, to) == f->len;
  return fclose(to) == 0 && ok;
}

bool disk_state_write(const disk_state *s, const char *folder) {
  bool ok = true;
  for (int i = 0; i < s->num && ok; i++) {
    md_text path = {0};
    md_put(&path, "%s%s", folder, s->file[i].path);
    ok = s->file[i].bytes ? write_file(path.s, &s->file[i]) : mkdir(path.s, 0700) == 0;
    md_text_free(&path);
  }
  return ok;
}

void disk_state_free(disk_state *s) {
  for (int i = 0; i < s->num; i++) {
    free(s->file[i].path);
    free(s->file[i].bytes);
  }
  free(s->file);
  *s = (disk_state){0};
}
