// SPDX-License-Identifier: Apache-2.0
// Kernels of a cubin. It is a 64-bit ELF file of machine 190; what matters stands in sections of
// records (format, attribute, size, and for format 4 a payload of that size):
//
//   .nv.info      registers and stack frame of every kernel, as {symbol, value}
//   .nv.info.K    bytes of K's parameters, and its most threads
//   .nv.shared.K  as large as K's static shared memory, and from sm_90 on 1 KiB that is reserved
//
// It may come from a file, so nothing is followed that has not been checked.
#include "runtime/exec/cubin.h"

#include <elf.h>
#include <string.h>

enum { MACHINE_CUDA = 190 };
enum { MAX_THREADS = 0x05, FRAME_SIZE = 0x11, PARAM_BYTES = 0x19, REGISTERS = 0x2F };

typedef struct cubin {
  const unsigned char *at;
  size_t bytes;
  Elf64_Ehdr head;
  Elf64_Shdr names;             // the section of section names
  Elf64_Shdr symbols, strings;  // of symbols
  md_kernel_facts *kernel;
  int num;
} cubin;

static bool lies_inside(const cubin *c, uint64_t offset, uint64_t bytes) {
  return offset <= c->bytes && bytes <= c->bytes - offset;
}

static bool read_section(const cubin *c, unsigned i, Elf64_Shdr *s) {
  uint64_t at = c->head.e_shoff + (uint64_t)i * sizeof *s;
  if (i >= c->head.e_shnum || !lies_inside(c, at, sizeof *s)) return false;
  memcpy(s, c->at + at, sizeof *s);
  return s->sh_type == SHT_NOBITS || lies_inside(c, s->sh_offset, s->sh_size);
}

// A string of a section of strings; NULL: it does not end inside.
static const char *string_at(const cubin *c, const Elf64_Shdr *strings, uint64_t at) {
  if (strings->sh_type != SHT_STRTAB || at >= strings->sh_size) return NULL;
  const char *s = (const char *)c->at + strings->sh_offset + at;
  return memchr(s, 0, strings->sh_size - at) ? s : NULL;
}

static const char *symbol_name(const cubin *c, uint32_t i, Elf64_Sym *sym) {
  if (i >= c->symbols.sh_size / sizeof *sym) return NULL;
  memcpy(sym, c->at + c->symbols.sh_offset + (uint64_t)i * sizeof *sym, sizeof *sym);
  return string_at(c, &c->strings, sym->st_name);
}

static md_kernel_facts *find(const cubin *c, const char *name) {
  for (int i = 0; name && i < c->num; i++)
    if (!strcmp(c->kernel[i].name, name)) return &c->kernel[i];
  return NULL;
}

static uint32_t word(const unsigned char *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

// One record. `k` is the kernel that the section is about; NULL: the record says which.
static void take_record(const cubin *c, const unsigned char *p, unsigned size, md_kernel_facts *k) {
  unsigned attribute = p[1];
  bool has_payload = p[0] == 4;
  if (k && attribute == PARAM_BYTES) k->param_bytes = (int)size;
  if (k && attribute == MAX_THREADS && has_payload && size >= 12) {
    uint64_t threads = (uint64_t)word(p + 4) * word(p + 8);
    k->max_threads = threads <= 1024 && word(p + 12) == 1 ? (int)threads : 0;
  }
  if (k || !has_payload || size != 8) return;
  Elf64_Sym sym;
  md_kernel_facts *of = find(c, symbol_name(c, word(p + 4), &sym));
  int value = (int)MD_MIN(word(p + 8), (uint32_t)INT32_MAX);
  if (of && attribute == REGISTERS) of->registers = value;
  if (of && attribute == FRAME_SIZE) of->frame_bytes = value;
}

static bool take_records(const cubin *c, const Elf64_Shdr *s, md_kernel_facts *k) {
  const unsigned char *p = c->at + s->sh_offset;
  size_t left = s->sh_size;
  while (left >= 4) {
    unsigned size = (unsigned)p[2] | (unsigned)p[3] << 8;
    size_t all = 4 + (p[0] == 4 ? size : 0);
    if (all > left) return false;
    take_record(c, p, size, k);
    p += all;
    left -= all;
  }
  return left == 0;
}

// What a section named `name` says. False: it cannot be read.
static bool take_section(const cubin *c, const char *name, const Elf64_Shdr *s, int sm) {
  static const char info[] = ".nv.info", shared[] = ".nv.shared.";
  size_t len = strlen(info);
  if (!strncmp(name, info, len) && s->sh_type != SHT_NOBITS) {
    if (!name[len]) return take_records(c, s, NULL);
    md_kernel_facts *k = name[len] == '.' ? find(c, name + len + 1) : NULL;
    return !k || take_records(c, s, k);
  }
  len = strlen(shared);
  md_kernel_facts *k = strncmp(name, shared, len) ? NULL : find(c, name + len);
  uint64_t reserved = sm >= 90 ? MD_RESERVED_SHARED : 0;
  if (k) k->shared_bytes = (int)MD_MIN(s->sh_size - MD_MIN(s->sh_size, reserved), INT32_MAX);
  return true;
}

// Functions that the outside sees, with code in the file.
static bool find_kernels(cubin *c, int max) {
  for (uint32_t i = 0; i < c->symbols.sh_size / sizeof(Elf64_Sym); i++) {
    Elf64_Sym sym;
    const char *name = symbol_name(c, i, &sym);
    if (!name) return false;
    if (ELF64_ST_TYPE(sym.st_info) != STT_FUNC || ELF64_ST_BIND(sym.st_info) != STB_GLOBAL ||
        sym.st_shndx == SHN_UNDEF)
      continue;
    if (c->num == max || strlen(name) >= MD_KERNEL_NAME || find(c, name)) return false;
    md_kernel_facts *k = &c->kernel[c->num++];
    *k = (md_kernel_facts){.registers = -1};
    snprintf(k->name, sizeof k->name, "%s", name);
  }
  return true;
}

static const char *read_head(cubin *c, int *sm) {
  if (c->bytes < sizeof c->head || memcmp(c->at, ELFMAG, SELFMAG) != 0) return "it is no ELF file";
  memcpy(&c->head, c->at, sizeof c->head);
  if (c->head.e_ident[EI_CLASS] != ELFCLASS64 || c->head.e_ident[EI_DATA] != ELFDATA2LSB ||
      c->head.e_machine != MACHINE_CUDA || c->head.e_shentsize != sizeof(Elf64_Shdr))
    return "it is code for something else than a CUDA device";
  *sm = (int)(c->head.e_flags >> 8 & 0xFF);
  if (!read_section(c, c->head.e_shstrndx, &c->names)) return "its section names are missing";
  for (unsigned i = 0; i < c->head.e_shnum; i++) {
    Elf64_Shdr s;
    if (!read_section(c, i, &s)) return "a section lies beyond its end";
    if (s.sh_type == SHT_SYMTAB) {
      c->symbols = s;
      if (!read_section(c, s.sh_link, &c->strings)) return "its symbols have no names";
    }
  }
  return NULL;
}

static const char *read_all(cubin *c, int max, int *sm) {
  const char *why = read_head(c, sm);
  if (why) return why;
  if (!find_kernels(c, max)) return "its symbols cannot be read";
  for (unsigned i = 0; i < c->head.e_shnum; i++) {
    Elf64_Shdr s;
    const char *name = read_section(c, i, &s) ? string_at(c, &c->names, s.sh_name) : NULL;
    if (!name || !take_section(c, name, &s, *sm)) return "a section cannot be read";
  }
  for (int i = 0; i < c->num; i++)
    if (c->kernel[i].registers < 0) return "a kernel says nothing of its registers";
  return NULL;
}

int md_cubin_read(const void *data, size_t bytes, md_kernel_facts *k, int max, int *sm,
                  const char **why) {
  cubin c = {.at = data, .bytes = bytes, .kernel = k};
  *sm = 0;
  *why = read_all(&c, max, sm);
  return *why ? -1 : c.num;
}
