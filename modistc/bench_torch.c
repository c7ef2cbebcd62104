// SPDX-License-Identifier: Apache-2.0
// The same work in PyTorch, as a process that takes turns with ours: it is sent a line, does the work
// once and answers with the milliseconds. The step and the losses are those of the peer's own script,
// reference/bench_torch.py; convolutions are called as it calls them.
//
//   modistc  --- "\n" --->  python -c program TASK   (a socket is its standard input and output)
//            <-- "3.25\n" --
#include "modistc/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WORDS = 24 };
// The peer's threads spin for a while after their work; ours shall not share the cores with them.
static const struct timespec rest = {.tv_nsec = 20000000};

// clang-format off
static const char program[] =
    "import argparse, sys, time, torch\n"
    "from torch import nn\n"
    "from reference import bench_torch as peer\n"
    "dtype, what, way = sys.argv[1:4]\n"
    "v = {k: [int(x) for x in s.split(',')] for k, s in (p.split('=') for p in sys.argv[4:])}\n"
    "one = lambda k: v[k][0]\n"
    "torch.manual_seed(0)\n"
    "torch.set_num_threads(one('threads'))\n"
    "a = argparse.Namespace(device='cpu', dtype=dtype, layout='channels_last_3d', mode='eager',\n"
    "                       fold2d=True, visual='r3d50', motion='frames', head='mlp')\n"
    "\n"
    "def step():\n"
    "    for k in ('batch', 'visual_frames', 'visual_size', 'motion_frames', 'motion_size', 'bank'):\n"
    "        setattr(a, k, one(k))\n"
    "    return peer.Step(a).run\n"
    "\n"
    "def sizes():\n"
    "    k, s, d = v['k'], v['s'], v['d']\n"
    "    wide = [d[i] * (k[i] - 1) + 1 for i in range(3)]\n"
    "    p = [wide[i] // 2 if v['p'][i] < 0 else v['p'][i] for i in range(3)]\n"
    "    size = [one(i) for i in 'thw']\n"
    "    out = [(size[i] + 2 * p[i] - wide[i]) // s[i] + 1 for i in range(3)]\n"
    "    return (one('n'), one('c'), *size), (one('n'), one('o'), *out), k, s, p, d\n"
    "\n"
    "def conv3d():\n"
    "    xs, ys, k, s, p, d = sizes()\n"
    "    x, w, dy = peer.conv_tensors({'x': xs, 'y': ys, 'k': k}, a)\n"
    "    if k[0] == 1 and s[0] == 1 and p[0] == 0:\n"
    "        fold = lambda z: z.transpose(1, 2).reshape(-1, z.shape[1], *z.shape[3:])\n"
    "        x, dy, w, s, p, d = fold(x), fold(dy), w.squeeze(2), s[1:], p[1:], d[1:]\n"
    "    zero = [0] * len(s)\n"
    "    if way == 'forward':\n"
    "        return lambda: torch.ops.aten.convolution(x, w, None, s, p, d, False, zero, 1)\n"
    "    mask = [way == 'dgrad', way == 'wgrad', False]\n"
    "    back = torch.ops.aten.convolution_backward\n"
    "    return lambda: back(dy, x, w, None, s, p, d, False, zero, 1, mask)\n"
    "\n"
    "def bottleneck():\n"
    "    xs, ys, k, s, p, d = sizes()\n"
    "    c, o, parts = xs[1], ys[1], []\n"
    "    for i, j, *rest in ((c, c, 1), (c, o, k, s, p, d), (o, c, 1)):\n"
    "        parts += [nn.Conv3d(i, j, *rest, bias=False), nn.BatchNorm3d(j), nn.ReLU(True)]\n"
    "    net = peer.fold2d(nn.Sequential(*parts).to(memory_format=torch.channels_last_3d))\n"
    "    x = torch.rand(xs).to(memory_format=torch.channels_last_3d)\n"
    "    w = [q for q in net.parameters() if q.dim() > 1]\n"
    "    def run():\n"
    "        with peer.autocast(a):\n"
    "            loss = net(x).float().square().mean()\n"
    "        return torch.autograd.grad(loss, w)\n"
    "    return run\n"
    "\n"
    "def matmul():\n"
    "    x, w = torch.randn(one('m'), one('k')), torch.randn(one('k'), one('n'))\n"
    "    dy = torch.randn(one('m'), one('n'))\n"
    "    x, y = {'forward': (x, w), 'dgrad': (dy, w.t()), 'wgrad': (x.t(), dy)}[way]\n"
    "    return lambda: x @ y\n"
    "\n"
    "def infonce():\n"
    "    unit = lambda n: nn.functional.normalize(torch.randn(n, one('d')))\n"
    "    q, k1, k2, bank = unit(one('q')), unit(one('q')), unit(one('q')), unit(one('r'))\n"
    "    q.requires_grad_(way == 'both')\n"
    "    ids, bank_ids = torch.arange(one('q')), torch.full((one('r'),), -1)\n"
    "    def run():\n"
    "        loss = sum(peer.nce_pair(q, k1, k2, bank, bank_ids[None] == ids[:, None], 0.1))\n"
    "        return torch.autograd.grad(loss, q) if way == 'both' else loss\n"
    "    return run\n"
    "\n"
    "run = {f.__name__: f for f in (step, conv3d, bottleneck, matmul, infonce)}[what]()\n"
    "print('ready', torch.__version__, flush=True)\n"
    "for _ in sys.stdin:\n"
    "    start = time.perf_counter()\n"
    "    run()\n"
    "    print((time.perf_counter() - start) * 1e3, flush=True)\n";
// clang-format on

struct md_bench_peer {
  pid_t child;
  int socket;
  FILE *errors;
  char version[64];
};

// --- the process

static bool send_line(md_bench_peer *p) { return send(p->socket, "\n", 1, MSG_NOSIGNAL) == 1; }

static bool read_line(md_bench_peer *p, char *line, int size) {
  for (int n = 0; n < size - 1;) {
    ssize_t got = read(p->socket, &line[n], 1);
    if (got < 0 && errno == EINTR) continue;
    if (got != 1) return false;
    line[n + 1] = 0;
    if (line[n++] != '\n') continue;
    line[n - 1] = 0;
    return true;
  }
  return false;
}

// The last line that it wrote to its standard error: Python's message.
static void last_words(md_bench_peer *p, char *why, size_t size) {
  char line[256], clean[256];
  snprintf(why, size, "it ended without a word");
  rewind(p->errors);
  while (fgets(line, sizeof line, p->errors)) {
    line[strcspn(line, "\n")] = 0;
    if (*line) snprintf(why, size, "%s", md_clean(line, clean, sizeof clean));
  }
}

static bool spawn(md_bench_peer *p, const char *python, const char *folder, char *const *argv,
                  char *why, size_t size) {
  int end[2];
  p->errors = tmpfile();
  if (!p->errors || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end) != 0) {
    snprintf(why, size, "%s", strerror(errno));
    return false;
  }
  p->socket = end[0];
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, end[1], 0);
  posix_spawn_file_actions_adddup2(&files, end[1], 1);
  posix_spawn_file_actions_adddup2(&files, fileno(p->errors), 2);
  posix_spawn_file_actions_addchdir_np(&files, folder);
  int error = posix_spawnp(&p->child, python, &files, NULL, argv, environ);
  posix_spawn_file_actions_destroy(&files);
  close(end[1]);
  if (!error) return true;
  p->child = 0;
  snprintf(why, size, "%s: %s", python, strerror(error));
  return false;
}

// A path that still holds in another folder; a bare name is looked up in PATH.
static const char *from_here(const char *path, md_arena *a) {
  char here[4096];
  if (!strchr(path, '/') || *path == '/' || !getcwd(here, sizeof here)) return path;
  return md_format(a, "%s/%s", here, path);
}

// --- taking turns

static bool is_ready(md_bench_peer *p, char *why, size_t size) {
  char line[128];
  if (!read_line(p, line, sizeof line)) {
    last_words(p, why, size);
    return false;
  }
  if (strncmp(line, "ready ", 6) != 0) {
    snprintf(why, size, "the program does not answer as expected");
    return false;
  }
  md_clean(line + 6, p->version, sizeof p->version);
  return true;
}

md_bench_peer *md_bench_peer_start(const md_bench *b, const char *task, char *why, size_t size) {
  md_arena *a = b->cli->arena;
  const char *python = md_cli_get(b->cli, "torch-python"),
             *folder = md_cli_get(b->cli, "torch-reference");
  if (!python) python = "python3";
  const char *script = folder ? md_format(a, "%s/reference/bench_torch.py", folder) : NULL;
  if (!task) snprintf(why, size, "the peer has nothing like it");
  else if (!folder) snprintf(why, size, "--torch-reference=DIR is not given");
  else if (access(script, R_OK) != 0) snprintf(why, size, "%s: %s", script, strerror(errno));
  if (!task || !folder || access(script, R_OK) != 0) return NULL;
  int threads = b->threads ? (int)b->threads : md_pool_default(), num = 0;
  char *argv[MAX_WORDS + 4] = {md_strdup(a, python), md_strdup(a, "-c"), md_strdup(a, program)};
  char *words = md_format(a, "%s %s threads=%d", b->precision == MD_BF16 ? "bf16" : "fp32", task,
                          threads),
       *rest_of = NULL;
  for (char *w = strtok_r(words, " ", &rest_of); w; w = strtok_r(NULL, " ", &rest_of)) {
    MD_ASSERT(num < MAX_WORDS, "task of the peer: %s", task);
    argv[3 + num++] = w;
  }
  md_bench_peer *p = calloc(1, sizeof *p);
  if (!p) md_out_of_memory(sizeof *p);
  p->socket = -1;
  if (spawn(p, from_here(python, a), folder, argv, why, size) && is_ready(p, why, size)) return p;
  md_bench_peer_stop(p);
  return NULL;
}

const char *md_bench_peer_version(const md_bench_peer *p) { return p->version; }

bool md_bench_peer_run(md_bench_peer *p, double *ms, char *why, size_t size) {
  char line[128];
  bool ok = send_line(p) && read_line(p, line, sizeof line);
  if (!ok) last_words(p, why, size);
  else if (!md_parse_float(line, ms) || !isfinite(*ms) || *ms <= 0) {
    snprintf(why, size, "it answered '%s'", line);
    ok = false;
  }
  nanosleep(&rest, NULL);
  return ok;
}

void md_bench_peer_stop(md_bench_peer *p) {
  if (!p) return;
  if (p->socket >= 0) close(p->socket);  // it reads the end of its input and ends
  while (p->child && waitpid(p->child, NULL, 0) < 0 && errno == EINTR) continue;
  if (p->errors) fclose(p->errors);
  free(p);
}
