// SPDX-License-Identifier: Apache-2.0
// What an artefact is, as JSON for people and tools; the manifest is for the loader.
#include "runtime/exec/exec.h"

static void put_specs(md_json *to, const char *key, const md_spec *s, int num) {
  md_json_key(to, key);
  md_json_begin(to, '[');
  for (int i = 0; i < num; i++) {
    char type[MD_SPEC_CHARS];
    md_json_begin(to, '{');
    md_json_key(to, "name");
    md_json_str(to, s[i].name);
    md_json_key(to, "type");
    md_json_str(to, md_spec_text(&s[i], type));
    md_json_key(to, "bytes");
    md_json_int(to, s[i].bytes);
    md_json_end(to, '}');
  }
  md_json_end(to, ']');
}

static int64_t sum_of(const md_spec *s, int num) {
  int64_t sum = 0;
  for (int i = 0; i < num; i++)
    if (!md_add_size(sum, s[i].bytes, &sum)) return INT64_MAX;
  return sum;
}

static void put_launches(md_json *to, const md_program *p) {
  md_json_key(to, "launches");
  md_json_begin(to, '[');
  for (int i = 0; i < p->num_launches; i++) {
    const md_launch *l = &p->launch[i];
    md_json_begin(to, '{');
    md_json_put_str(to, "name", l->name);
    md_json_put_int(to, "phases", l->num_phases);
    md_json_put_float(to, "flops", l->flops);
    md_json_put_float(to, "bytes", l->bytes);
    md_json_end(to, '}');
  }
  md_json_end(to, ']');
}

// Targets of a CUDA program, with what each kernel takes of a device.
static void put_variants(md_json *to, const md_program *p) {
  md_json_key(to, "targets");
  md_json_begin(to, '[');
  for (int i = 0; i < p->num_variants; i++) {
    const md_gpu_variant *v = &p->variant[i];
    md_json_begin(to, '{');
    md_json_put_str(to, "target", v->target);
    md_json_put_int(to, "launches", v->num_launches);
    md_json_put_int(to, "workspace", v->workspace_bytes);
    md_json_key(to, "kernels");
    md_json_begin(to, '[');
    for (int k = v->first_kernel; k < v->first_kernel + v->num_kernels; k++) {
      const md_gpu_kernel *g = &p->kernel[k];
      md_json_begin(to, '{');
      md_json_put_str(to, "symbol", g->symbol);
      md_json_put_str(to, "member", g->member);
      md_json_put_int(to, "bytes", (int64_t)g->bytes);
      md_json_put_int(to, "registers", g->facts.registers);
      md_json_put_int(to, "shared", g->facts.shared_bytes);
      md_json_put_int(to, "threads", g->facts.max_threads);
      md_json_end(to, '}');
    }
    md_json_end(to, ']');
    md_json_end(to, '}');
  }
  md_json_end(to, ']');
}

static bool runs_here(const md_program *p) {
  char why[600];
  md_gpu_lack lack;
  md_gpu_device device;
  if (!p->num_variants) return md_machine_runs(p->target, why, sizeof why);
  return md_gpu_find(0, &device, &lack) && md_gpu_variant_for(p, device.sm);
}

void md_inspect_program(const md_program *p, const md_member *members, int num, md_json *to) {
  char digest[33];
  md_json_begin(to, '{');
  md_json_key(to, "format");
  md_json_str(to, MD_ARTEFACT_FORMAT);
  md_json_key(to, "abi");
  md_json_int(to, MD_ABI_VERSION);
  md_json_key(to, "name");
  md_json_str(to, p->name);
  md_json_key(to, "target");
  md_json_str(to, p->target);
  md_json_key(to, "runs_here");
  md_json_bool(to, runs_here(p));
  md_json_key(to, "graph");
  md_json_str(to, md_digest_text(p->graph, digest));
  md_json_key(to, "members");
  md_json_begin(to, '[');
  for (int i = 0; i < num; i++) {
    md_json_begin(to, '{');
    md_json_key(to, "name");
    md_json_str(to, members[i].name);
    md_json_key(to, "bytes");
    md_json_int(to, (int64_t)members[i].bytes);
    if (members[i].deflate) md_json_put_int(to, "deflated", (int64_t)members[i].file_bytes);
    if (members[i].shared) {
      md_json_key(to, "shared");
      md_json_bool(to, true);
    }
    md_json_end(to, '}');
  }
  md_json_end(to, ']');
  md_json_key(to, "memory");
  md_json_begin(to, '{');
  md_json_key(to, "arena");
  md_json_int(to, p->arena_bytes);
  md_json_key(to, "workspace");
  md_json_int(to, p->workspace_bytes);
  md_json_key(to, "states");
  md_json_int(to, sum_of(p->state, p->num_states));
  md_json_key(to, "inputs");
  md_json_int(to, sum_of(p->input, p->num_inputs));
  md_json_end(to, '}');
  if (p->num_variants) put_variants(to, p);
  put_specs(to, "inputs", p->input, p->num_inputs);
  put_specs(to, "states", p->state, p->num_states);
  put_specs(to, "results", p->result, p->num_results);
  put_launches(to, p);
  md_json_end(to, '}');
}
