// SPDX-License-Identifier: Apache-2.0
// Kernels on a GPU: each sample, convolutions among them, is compiled by NVRTC for the device that is there,
// run through the driver, and compared with the interpreter and with the same text on the fiber machine.
// Where the device has `wgmma`, all come a second time for the target that has it.
//   device_launcher            all samples, then random graphs; exit 4 without a GPU
//   device_launcher --name     the device's name as a folder name
//   device_launcher --random=N how many random graphs
#include "tests/device/driver.h"
#include "tests/simt/run.h"
#include "tests/simt/samples.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// --- a program on the device

static bool launch_all(const Driver *d, const Program *p, void *module, const Address *at,
                       md_text *why) {
  for (int i = 0; i < p->m->num_launches; i++) {
    const md_cuda_launch *l = &p->m->launch[i];
    Address pointer[512];
    void *arg[512];
    for (int k = 0; k < l->num_args; k++) {
      int64_t offset;
      int image = program_place(p, &l->arg[k], &offset);
      pointer[k] = at[image] + (Address)offset;
      arg[k] = &pointer[k];
    }
    for (int k = 0; k < l->num_counts; k++) {
      pointer[l->num_args + k] = (Address)l->count[k];
      arg[l->num_args + k] = &pointer[l->num_args + k];
    }
    if (!driver_launch(d, module, l->kernel, l->blocks, l->threads, l->shared_bytes, arg, why))
      return false;
  }
  return true;
}

// *data: images as the device left them, malloc'ed.
static bool run_on_device(const Driver *d, md_cuda_arch arch, const Program *p, char **data,
                          md_text *why) {
  void *module = NULL;
  md_cubin cubin;
  if (!md_nvrtc_compile(p->m->text.s, "sample.cu", arch, false, &cubin, p->diags)) {
    md_put(why, "%s", md_diags_text(p->diags));
    return false;
  }
  Address *at = calloc((size_t)p->num_images, sizeof *at);
  MD_ASSERT(at, "out of memory");
  bool ok = driver_good(d, d->load(&module, cubin.data), "cuModuleLoadData", why);
  for (int i = 0; ok && i < p->num_images; i++) {
    size_t bytes = (size_t)p->image[i].bytes;
    if (!bytes) continue;
    ok = driver_good(d, d->alloc(&at[i], bytes), "cuMemAlloc", why) &&
         driver_good(d, d->set(at[i], 0xff, bytes), "cuMemset", why) &&
         (!p->image[i].is_set ||
          driver_good(d, d->to_device(at[i], p->image[i].data, bytes), "cuMemcpy", why));
  }
  ok = ok && launch_all(d, p, module, at, why);
  for (int i = 0; i < p->num_images; i++) {
    data[i] = malloc((size_t)MD_MAX(p->image[i].bytes, 1));
    MD_ASSERT(data[i], "out of memory");
    if (ok && p->image[i].bytes)
      ok = driver_good(d, d->to_host(data[i], at[i], (size_t)p->image[i].bytes), "cuMemcpy", why);
    if (at[i]) d->free(at[i]);
  }
  if (module) d->unload(module);
  free(at);
  free(cubin.data);
  free(cubin.log);
  return ok;
}

// Largest difference between device and fiber machine over the results, of their size; -1: no host.
static double against_host(const Program *p, char *const *device) {
  char **host = NULL;
  md_text why = {0};
  double worst = -1;
  if (run_build(p) && run_program(p, NULL, (simt_options){SIMT_FORWARD, 0}, &host, &why)) {
    worst = 0;
    for (int i = 0; i < p->g->num_results; i++) {
      md_val v = p->g->result[i].val;
      md_type t = *md_type_in(p->g, v);
      if (p->image_of[v] < 0) continue;
      md_tensor *a = md_tensor_create(t), *b = md_tensor_create(t);
      MD_ASSERT(a && b, "out of memory");
      md_tensor_read(a, device[p->image_of[v]]);
      md_tensor_read(b, host[p->image_of[v]]);
      for (int64_t k = 0; k < md_elements(&t.shape); k++) {
        double x = a->f ? a->f[k] : (double)a->i[k], y = b->f ? b->f[k] : (double)b->i[k];
        if (isfinite(x) && isfinite(y)) worst = fmax(worst, fabs(x - y) / fmax(fabs(y), 1));
      }
      md_tensor_destroy(a);
      md_tensor_destroy(b);
    }
  }
  free(host);
  simt_free_buffers();
  simt_forget();
  md_text_free(&why);
  return worst;
}

// Takes g; NULL: it could not be made.
static bool try(const Driver *d, md_cuda_arch arch, md_graph *g, uint64_t seed, const char *label,
                md_diags *diags) {
  md_text why = {0};
  char name[120];
  snprintf(name, sizeof name, "%s, sm_%d%s", label, arch.sm, arch.suffix ? "a" : "");
  Program *p = g ? program_for(arch, g, 2, MD_F32, seed, diags) : NULL;
  if (!p) {
    printf("FAILED %s: no program\n", name);
    return false;
  }
  char **data = calloc((size_t)p->num_images, sizeof *data);
  MD_ASSERT(data, "out of memory");
  bool ok = run_on_device(d, arch, p, data, &why) && program_check(p, data, &why);
  if (ok) {
    double worst = against_host(p, data);
    if (worst < 0) printf("passed %-48s (no host compiler to compare with)\n", name);
    else printf("passed %-48s device against host %.1e\n", name, worst);
  } else {
    printf("FAILED %s: %s\n", name, why.s);
  }
  for (int i = 0; i < p->num_images; i++) free(data[i]);
  free(data);
  program_destroy(p);
  md_text_free(&why);
  return ok;
}

static void print_name(const char *label) {
  for (const char *s = label; *s; s++) putchar(strchr(" /\\()", *s) ? '-' : *s);
  putchar('\n');
}

typedef bool Samples(int i, md_text *to, char name[64]);

// counts: of failures and passes.
static void try_samples(const Driver *d, md_cuda_arch arch, Samples *samples, int counts[2],
                        md_diags *diags) {
  md_text text = {0};
  char name[64];
  for (int i = 0; samples(i, &text, name); i++) {
    md_diags_clear(diags);
    md_graph *g = md_parse_graph("sample", text.s, strlen(text.s), diags);
    counts[try(d, arch, g, 1, name, diags)]++;
    md_text_free(&text);
    text = (md_text){0};
  }
}

static void try_all(const Driver *d, md_cuda_arch arch, int64_t num_random, int counts[2],
                    md_diags *diags) {
  char name[64];
  try_samples(d, arch, simt_sample, counts, diags);
  try_samples(d, arch, simt_conv_sample, counts, diags);
  for (int64_t seed = 1; seed <= num_random; seed++) {
    md_diags_clear(diags);
    snprintf(name, sizeof name, "random graph %lld", (long long)seed);
    md_graph *g = simt_random_graph((uint64_t)seed, diags);
    counts[try(d, arch, g, (uint64_t)seed, name, diags)]++;
  }
}

int main(int argc, char **argv) {
  Driver d = {0};
  int64_t num_random = 20;
  bool name_only = argc > 1 && !strcmp(argv[1], "--name");
  if (argc > 1 && !name_only &&
      (strncmp(argv[1], "--random=", 9) != 0 || !md_parse_int(argv[1] + 9, &num_random))) {
    fprintf(stderr, "usage: device_launcher [--name | --random=N]\n");
    return 2;
  }
  if (!driver_open(&d)) return NO_DEVICE;
  if (name_only) {
    print_name(d.label);
    d.release(d.device);
    return 0;
  }
  int version = 0, major, minor, counts[2] = {0};
  d.version(&version);
  md_diags *diags = md_diags_create();
  if (!md_nvrtc_version(&major, &minor, diags)) {
    md_diags_print(diags, stdout, false);
    return NO_DEVICE;
  }
  printf("%s, sm_%d, driver %d.%d, NVRTC %d.%d\n", d.label, d.sm, version / 1000,
         version % 1000 / 10, major, minor);
  const md_cuda_arch plain = {.sm = d.sm}, with_wgmma = {d.sm, 'a'};
  try_all(&d, plain, num_random, counts, diags);
  if (md_cuda_has_wgmma(with_wgmma)) try_all(&d, with_wgmma, num_random, counts, diags);
  md_diags_destroy(diags);
  d.release(d.device);
  printf("%d passed, %d failed\n", counts[true], counts[false]);
  return counts[false] != 0;
}
