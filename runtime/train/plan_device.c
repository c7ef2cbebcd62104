// SPDX-License-Identifier: Apache-2.0
// A dry run for a GPU. The step becomes the program that would run there, without code, so neither the GPU
// nor its driver nor NVRTC is needed; what a step takes is predicted from the facts of the device.
#include "runtime/train/plan.h"

#include <string.h>

static bool find_described(md_plan_device *v, const md_train_options *o, md_diags *d) {
  md_cuda_arch arch[MD_CUDA_TARGETS];
  int num = md_cuda_targets(o->target, arch, MD_CUDA_TARGETS, d);
  if (!num) return false;
  if (num > 1)
    return md_error(d, E0401, MD_NOWHERE, "a run is planned for one device, but --target names %d",
                    num);
  snprintf(v->target, sizeof v->target, "cuda:sm_%d%.1s", arch->sm, &arch->suffix);
  const char *name = strchr(o->target, ':');
  v->spec = o->spec ? o->spec : md_cuda_device(name ? name + 1 : o->target);
  if (!v->spec) v->spec = md_cuda_device_of(*arch);
  if (v->spec) v->bytes = (int64_t)v->spec->memory_bytes;
  snprintf(v->title, sizeof v->title, "%s", v->spec ? v->spec->title : v->target);
  return true;
}

// What is known of the device by its name, else of the best of its kind.
static const md_cuda_spec *facts_of(const md_gpu_device *device) {
  for (int i = 0; i < md_cuda_num_devices(); i++) {
    const md_cuda_spec *s = md_cuda_device_at(i);
    if (s->arch.sm == device->sm && md_is_named(device->name, s->name)) return s;
  }
  return md_cuda_device_of((md_cuda_arch){.sm = device->sm});
}

static bool find_here(md_plan_device *v, const md_train_options *o, md_diags *d) {
  int index;
  md_gpu_device device;
  if (!md_device_parse(o->engine.device ? o->engine.device : "cuda:0", &index, d) ||
      !md_gpu_require(index, &device, d) ||
      !md_cuda_target_for(device.sm, v->target, sizeof v->target, d))
    return false;
  v->spec = facts_of(&device);
  v->bytes = device.bytes;
  snprintf(v->title, sizeof v->title, "cuda:%d, %s (sm_%d)", index, device.name, device.sm);
  return true;
}

bool md_plan_device_find(md_plan_device *v, const md_train_options *o, md_diags *d) {
  *v = (md_plan_device){0};
  v->program = (md_cuda_options){.targets = v->target, .no_ptx = true, .plan_only = true};
  return o->target ? find_described(v, o, d) : find_here(v, o, d);
}

md_program *md_plan_device_program(md_plan_device *v, const md_graph *g, md_diags *d) {
  md_cuda_report r = {.arena = md_arena_create()};
  md_program *p = md_cuda_program(g, &v->program, &r, d);
  if (p && v->spec) v->forecast = md_cuda_forecast_of(p, &p->variant[0], &r, v->spec);
  md_arena_destroy(r.arena);
  return p;
}

static double inputs_of(const md_program *p) {
  double bytes = 0;
  for (int i = 0; i < p->num_inputs; i++) bytes += (double)p->input[i].bytes;
  return bytes;
}

bool md_plan_device_estimate(const md_plan_device *v, const md_program *p, md_estimate *e,
                             FILE *to) {
  if (!v->spec) {
    fprintf(to, "time    not estimated: no device of %s is described; --target-spec=FILE does it\n",
            v->target);
    return false;
  }
  const md_cuda_forecast *f = &v->forecast;
  e->arithmetic_s = (f->us[MD_BY_TENSOR] + f->us[MD_BY_FMA]) / 1e6;
  e->memory_s = f->us[MD_BY_MEMORY] / 1e6;
  e->launch_s = f->us[MD_BY_LAUNCH] / 1e6;
  e->step_s = f->all_us / 1e6;
  fprintf(to, "time    %-14s %12.4g s a step, predicted for %s\n", "compute", e->step_s,
          v->spec->title);
  fprintf(to,
          "        %-14s %12.4g TFLOP/s and %.4g TB/s on average, of %.4g (f32: %.4g) and %.4g\n",
          "rates", f->flops / f->all_us / 1e6, f->bytes / f->all_us / 1e6,
          v->spec->tensor_flops / 1e12, v->spec->fma_flops / 1e12, v->spec->bandwidth / 1e12);
  fprintf(to, "        %-14s", "bound");
  for (int i = 0; i < MD_NUM_LIMITS; i++)
    fprintf(to, "%s %.0f%% %s (%d launches)", i ? "," : "", 100 * f->us[i] / f->all_us,
            md_cuda_limit_names[i], f->launches[i]);
  char text[MD_FLOAT_CHARS];
  fprintf(to, "\n        %-14s %12s a step while the one before runs, %.3g GB/s\n", "sent",
          md_bytes_text(inputs_of(p), text), inputs_of(p) / e->step_s / 1e9);
  return true;
}
