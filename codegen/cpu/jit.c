// SPDX-License-Identifier: Apache-2.0
// Modules -> objects -> code in this process. Objects are made by a target machine, so that they
// can be cached and linked into artefacts; LLJIT only places them (W^X: never writable and
// executable).
#include "codegen/cpu/emit.h"

#include <llvm-c/Error.h>
#include <llvm-c/LLJIT.h>
#include <llvm-c/Orc.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

// The emitters write what they mean: values in registers, no aliasing games. What is left to do is
// promotion, folding, hoisting of what does not change in a loop.
static const char pipeline[] =
    "function(sroa,early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg,"
    "loop-mssa(licm),early-cse<memssa>,instcombine<no-verify-fixpoint>,simplifycfg)";

static bool failed(md_diags *d, const char *doing, char *message) {
  md_error(d, E0830, MD_NOWHERE, "LLVM could not %s: %s", doing, message ? message : "no reason");
  LLVMDisposeMessage(message);
  return false;
}

static bool failed_error(md_diags *d, const char *doing, LLVMErrorRef error) {
  char *message = LLVMGetErrorMessage(error);
  md_error(d, E0830, MD_NOWHERE, "LLVM could not %s: %s", doing, message);
  LLVMDisposeErrorMessage(message);
  return false;
}

// LLVM's list of targets is its own global: two threads that register at once make it ambiguous.
static void initialize(void) {
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  LLVMInitializeAArch64TargetInfo();
  LLVMInitializeAArch64Target();
  LLVMInitializeAArch64TargetMC();
  LLVMInitializeAArch64AsmPrinter();
}

static void initialize_once(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, initialize);
}

static LLVMTargetMachineRef machine_of(const md_cpu *cpu, md_diags *d) {
  initialize_once();
  char triple[64], *message = NULL;
  snprintf(triple, sizeof triple, "%s-unknown-linux-gnu", cpu->arch);
  LLVMTargetRef target;
  if (LLVMGetTargetFromTriple(triple, &target, &message)) {
    failed(d, "find its target", message);
    return NULL;
  }
  return LLVMCreateTargetMachine(target, triple, cpu->llvm_cpu, cpu->features,
                                 LLVMCodeGenLevelDefault, LLVMRelocPIC, LLVMCodeModelDefault);
}

bool md_module_setup(LLVMModuleRef mod, const md_cpu *cpu, md_diags *d) {
  LLVMTargetMachineRef machine = machine_of(cpu, d);
  if (!machine) return false;
  char *triple = LLVMGetTargetMachineTriple(machine);
  LLVMSetTarget(mod, triple);
  LLVMDisposeMessage(triple);
  LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(machine);
  LLVMSetModuleDataLayout(mod, layout);
  LLVMDisposeTargetData(layout);
  LLVMDisposeTargetMachine(machine);
  return true;
}

static bool run_passes(LLVMModuleRef mod, const char *passes, LLVMTargetMachineRef machine,
                       md_diags *d) {
  LLVMPassBuilderOptionsRef options = LLVMCreatePassBuilderOptions();
  LLVMErrorRef error = LLVMRunPasses(mod, passes, machine, options);
  LLVMDisposePassBuilderOptions(options);
  return error ? failed_error(d, "optimise a kernel", error) : true;
}

bool md_object_compile(LLVMModuleRef mod, const md_cpu *cpu, bool asan, md_object *out,
                       md_cpu_report *report, md_diags *d) {
  LLVMTargetMachineRef machine = machine_of(cpu, d);
  if (!machine) return false;
  int64_t start = md_now_ns();
  bool ok = run_passes(mod, pipeline, machine, d) && (!asan || run_passes(mod, "asan", machine, d));
  int64_t optimised = md_now_ns();
  LLVMMemoryBufferRef buffer = NULL;
  char *message = NULL;
  if (ok && LLVMTargetMachineEmitToMemoryBuffer(machine, mod, LLVMObjectFile, &message, &buffer)) {
    ok = failed(d, "compile a kernel", message);
  }
  if (ok) {
    out->bytes = LLVMGetBufferSize(buffer);
    out->data = md_malloc(out->bytes);
    memcpy(out->data, LLVMGetBufferStart(buffer), out->bytes);
    LLVMDisposeMemoryBuffer(buffer);
  }
  report->optimise_ms += (double)(optimised - start) * 1e-6;
  report->codegen_ms += (double)(md_now_ns() - optimised) * 1e-6;
  LLVMDisposeTargetMachine(machine);
  return ok;
}

bool md_assembly_text(LLVMModuleRef mod, const md_cpu *cpu, md_text *to, md_diags *d) {
  LLVMTargetMachineRef machine = machine_of(cpu, d);
  if (!machine) return false;
  LLVMModuleRef copy = LLVMCloneModule(mod);
  LLVMMemoryBufferRef buffer = NULL;
  char *message = NULL;
  bool ok = run_passes(copy, pipeline, machine, d);
  if (ok &&
      LLVMTargetMachineEmitToMemoryBuffer(machine, copy, LLVMAssemblyFile, &message, &buffer)) {
    ok = failed(d, "print the assembly of a kernel", message);
  }
  if (ok) {
    md_put_bytes(to, LLVMGetBufferStart(buffer), LLVMGetBufferSize(buffer));
    LLVMDisposeMemoryBuffer(buffer);
  }
  LLVMDisposeModule(copy);
  LLVMDisposeTargetMachine(machine);
  return ok;
}

// What a session reports would go to stderr; the first report says why the rest fails.
typedef struct Jit {
  LLVMOrcLLJITRef orc;
  char reason[200];
} Jit;

static void keep_reason(void *ctx, LLVMErrorRef error) {
  Jit *jit = ctx;
  char *message = LLVMGetErrorMessage(error);
  if (!*jit->reason) snprintf(jit->reason, sizeof jit->reason, "%s", message);
  LLVMDisposeErrorMessage(message);
}

void *md_jit_load(const md_object *objects, int num, md_diags *d) {
  initialize_once();
  Jit *jit = md_calloc(1, sizeof *jit);
  LLVMErrorRef error = LLVMOrcCreateLLJIT(&jit->orc, NULL);
  if (error) {
    failed_error(d, "set up its JIT", error);
    free(jit);
    return NULL;
  }
  LLVMOrcExecutionSessionSetErrorReporter(LLVMOrcLLJITGetExecutionSession(jit->orc), keep_reason,
                                          jit);
  for (int i = 0; i < num && !error; i++) {
    char name[24];  // distinct: the JIT derives symbols from it
    snprintf(name, sizeof name, "kernel%d", i);
    LLVMMemoryBufferRef buffer =
        LLVMCreateMemoryBufferWithMemoryRangeCopy(objects[i].data, objects[i].bytes, name);
    error = LLVMOrcLLJITAddObjectFile(jit->orc, LLVMOrcLLJITGetMainJITDylib(jit->orc), buffer);
  }
  if (error) {
    failed_error(d, "add a kernel to its JIT", error);
    md_jit_free(jit);
    return NULL;
  }
  return jit;
}

void *md_jit_lookup(void *code, const char *symbol) {
  Jit *jit = code;
  LLVMOrcExecutorAddress address = 0;
  LLVMErrorRef error = LLVMOrcLLJITLookup(jit->orc, &address, symbol);
  if (error) {
    keep_reason(jit, error);
    return NULL;
  }
  return (void *)(uintptr_t)address;
}

const char *md_jit_reason(const void *code) { return ((const Jit *)code)->reason; }

void md_jit_free(void *code) {
  Jit *jit = code;
  LLVMErrorRef error = LLVMOrcDisposeLLJIT(jit->orc);
  if (error) LLVMConsumeError(error);
  free(jit);
}
