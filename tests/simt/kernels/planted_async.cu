// Kernels with one bug each, and the same without it: asynchronous copies. x and y have 512 numbers.

// Each thread copies 16 bytes, then reads those of its neighbour.
#define COPIED(COPY, WAIT)                                        \
  MD_SHARED(shared);                                              \
  float *const s = (float *)shared;                               \
  COPY                                                            \
  md_cp_commit();                                                 \
  WAIT                                                            \
  md_sync();                                                      \
  for (int i = 0; i < 4; i++) y[4 * md_thread() + i] = s[4 * (md_thread() ^ 1) + i];

#define MINE (s + 4 * md_thread())
#define FROM (x + 4 * md_thread())

//! shared=1024 x=512 y=512
MD_KERNEL(64) good_copy(const float *x, float *y) {
  COPIED(md_cp_async(MINE, FROM, 16);, md_cp_wait(0);)
}

//! shared=1024 x=512 y=512
MD_KERNEL(64) good_empty_copy(const float *x, float *y) {
  COPIED(md_cp_async(MINE, x + 100000, 0);, md_cp_wait(0);)
}

//! shared=1024 x=512 y=512: reads shared memory +992, into which a copy of thread 62 is in flight
MD_KERNEL(64) copy_without_wait(const float *x, float *y) {
  COPIED(md_cp_async(MINE, FROM, 16);, )
}

//! shared=1024 x=512 y=512: in flight
MD_KERNEL(64) wait_too_weak(const float *x, float *y) {
  COPIED(md_cp_async(MINE, FROM, 16);, md_cp_wait(1);)
}

//! shared=1024 x=512 y=512: in flight
MD_KERNEL(64) copy_not_committed(const float *x, float *y) {
  MD_SHARED(shared);
  float *const s = (float *)shared;
  md_cp_async(MINE, FROM, 16);
  md_cp_wait(0);
  y[md_thread()] = *MINE;
}

//! shared=1024 x=512 y=512: reads shared memory
MD_KERNEL(64) copy_without_barrier(const float *x, float *y) {
  MD_SHARED(shared);
  float *const s = (float *)shared;
  md_cp_async(MINE, FROM, 16);
  md_cp_commit();
  md_cp_wait(0);
  y[md_thread()] = s[4 * (md_thread() ^ 1)];
}

//! shared=1024 x=512: ends with a copy in flight
MD_KERNEL(64) copy_at_exit(const float *x, float *y) {
  y[md_thread()] = 1.0f;
  MD_SHARED(shared);
  float *const s = (float *)shared;
  md_cp_async(MINE, FROM, 16);
  md_cp_commit();
}

//! shared=1040 x=512 y=512: writes 16 bytes of shared memory at +8: misaligned
MD_KERNEL(64) copy_to_misaligned(const float *x, float *y) {
  COPIED(md_cp_async(MINE + 2, FROM, 16);, md_cp_wait(0);)
}

//! shared=1024 x=512 y=512: reads 16 bytes of x at +4: misaligned
MD_KERNEL(64) copy_from_misaligned(const float *x, float *y) {
  COPIED(md_cp_async(MINE, FROM + 1, 16);, md_cp_wait(0);)
}

//! shared=1024 x=250 y=512: reads 16 bytes of x at +992, but it has 1000
MD_KERNEL(64) copy_from_past_end(const float *x, float *y) {
  COPIED(md_cp_async(MINE, FROM, 16);, md_cp_wait(0);)
}

//! shared=1000 x=512 y=512: cp.async: 16 bytes at +992 of shared memory, but it has 1000
MD_KERNEL(64) copy_to_past_end(const float *x, float *y) {
  COPIED(md_cp_async(MINE, FROM, 16);, md_cp_wait(0);)
}

//! shared=1024 x=512 y=512: cp.async: 16 bytes at
MD_KERNEL(64) copy_to_global_memory(const float *x, float *y) {
  md_cp_async(y + 4 * md_thread(), FROM, 16);
  md_cp_commit();
  md_cp_wait(0);
}

//! shared=1024 x=512 y=512: cp.async reads shared memory
MD_KERNEL(64) copy_from_shared_memory(const float *x, float *y) {
  MD_SHARED(shared);
  float *const s = (float *)shared;
  *MINE = *FROM;
  md_cp_async(MINE, MINE, 16);
  y[0] = 0.0f;
}

//! shared=1024 x=512 y=512: race: reads shared memory
MD_KERNEL(64) copy_over_what_is_read(const float *x, float *y) {
  COPIED(md_cp_async(MINE, FROM, 16);, md_cp_wait(0);)
  md_cp_async(MINE, FROM, 16);  // the neighbour may not have read it
  md_cp_commit();
  md_cp_wait(0);
}

//! shared=1024 x=512 y=512: writes shared memory +0, into which a copy of thread 0 is in flight
MD_KERNEL(64) store_over_copy(const float *x, float *y) {
  COPIED(md_cp_async(MINE, FROM, 16); *MINE = 1.0f;, md_cp_wait(0);)
}
