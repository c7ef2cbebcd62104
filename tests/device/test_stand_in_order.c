// SPDX-License-Identifier: Apache-2.0
// When the driver's stand-in does asynchronous work: as late as it may, so that a wait that is missing
// gives wrong numbers; and what a capture makes of it.
#include "tests/device/stand_in_fixture.h"

#include <pthread.h>

static void set_order(const char *name) { setenv("MODIST_STAND_IN_ORDER", name, 1); }

static float first_of(Address at) {
  float all[NUM];
  works(cuMemcpyDtoH_v2(all, at, BYTES));
  return all[1];
}

static bool is_nan(float f) { return f != f; }

// --- streams and events

static void run_in(const char *order) {
  set_order(order);
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, stream));
  works(launch(a, b, stream));
  works(cuMemcpyDtoHAsync_v2(y, b, BYTES, stream));
  ck_assert_int_eq(y[1] == 2, !strcmp(order, "at-once"));  // else when somebody waits
  works(cuStreamSynchronize(stream));
  ck_assert(y[1] == 2 && y[63] == 126);
}

START_TEST(a_kernel_runs_in_every_order) {
  start_with_arrays();
  run_in("at-once");
  run_in("late");
  run_in("copies-first");
  run_in("others-first");
  finish_with_arrays();
}
END_TEST

START_TEST(pinned_memory_is_read_late_and_other_memory_at_once) {
  start_with_arrays();
  float plain[NUM] = {0, 5};
  works(cuMemcpyHtoDAsync_v2(a, plain, BYTES, stream));
  works(cuMemcpyHtoDAsync_v2(b, x, BYTES, stream));
  plain[1] = x[1] = 7;
  works(cuStreamSynchronize(stream));
  ck_assert(first_of(a) == 5 && first_of(b) == 7);
  finish_with_arrays();
}
END_TEST

START_TEST(pinned_memory_holds_nothing_until_its_copy_is_waited_for) {
  start_with_arrays();
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, stream));
  y[1] = 3;
  works(cuMemcpyHtoDAsync_v2(b, y, BYTES, stream));
  works(cuMemcpyDtoHAsync_v2(y, a, BYTES, stream));
  ck_assert(y[1] == 3);  // the copy before still reads it
  works(cuStreamSynchronize(stream));
  ck_assert(y[1] == 1 && first_of(b) == 3);
  works(cuMemcpyDtoHAsync_v2(y, b, BYTES, stream));
  ck_assert(is_nan(y[1]));
  works(cuStreamSynchronize(stream));
  ck_assert(y[1] == 3);
  finish_with_arrays();
}
END_TEST

START_TEST(only_an_event_makes_a_stream_wait_for_another) {
  start_with_arrays();
  void *sender, *sent;
  works(cuStreamCreate(&sender, STREAM_NON_BLOCKING));
  works(cuEventCreate(&sent, EVENT_NO_TIMING));
  works(cuMemsetD8Async(a, 0, BYTES, stream));
  works(cuStreamWaitEvent(stream, sent, 0));  // not recorded yet: nothing to wait for
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, sender));
  works(launch(a, b, stream));
  works(cuStreamSynchronize(stream));
  ck_assert(first_of(b) == 0);
  works(cuEventRecord(sent, sender));
  works(cuStreamWaitEvent(stream, sent, 0));
  works(launch(a, b, stream));
  works(cuStreamDestroy_v2(sender));  // its work is still done
  works(cuStreamSynchronize(stream));
  ck_assert(first_of(b) == 2);
  works(cuEventDestroy_v2(sent));
  finish_with_arrays();
}
END_TEST

// The other way round: the next input comes before the last was read.
START_TEST(copies_come_first_where_nothing_holds_them) {
  start_with_arrays();
  void *sender;
  works(cuStreamCreate(&sender, STREAM_NON_BLOCKING));
  works(cuMemcpyHtoD_v2(a, x, BYTES));
  set_order("copies-first");
  works(launch(a, b, stream));
  x[1] = 7;
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, sender));
  works(cuStreamSynchronize(stream));
  ck_assert(first_of(b) == 14);
  works(cuStreamDestroy_v2(sender));
  finish_with_arrays();
}
END_TEST

START_TEST(the_work_of_others_comes_first_where_nothing_holds_it) {
  start_with_arrays();
  void *sender, *sent;
  works(cuStreamCreate(&sender, STREAM_NON_BLOCKING));
  works(cuEventCreate(&sent, 0));
  works(cuMemcpyHtoD_v2(a, x, BYTES));
  set_order("others-first");
  for (int is_held = 0; is_held < 2; is_held++) {
    x[1] += 6;
    works(cuMemcpyHtoDAsync_v2(a, x, BYTES, sender));
    works(cuEventRecord(sent, sender));
    if (is_held) works(cuStreamWaitEvent(stream, sent, 0));
    works(launch(a, b, stream));
    works(cuEventSynchronize(sent));
    works(cuStreamSynchronize(stream));
    ck_assert(first_of(b) == (is_held ? 26 : 2));
  }
  works(cuStreamDestroy_v2(sender));
  works(cuEventDestroy_v2(sent));
  finish_with_arrays();
}
END_TEST

START_TEST(the_legacy_stream_and_those_that_block_wait_for_each_other) {
  start_with_arrays();
  void *blocking;
  works(cuStreamCreate(&blocking, 0));
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, blocking));
  works(launch(a, b, NULL));
  works(cuMemcpyDtoHAsync_v2(y, b, BYTES, blocking));
  works(cuStreamSynchronize(blocking));
  ck_assert(y[1] == 2);
  works(cuMemsetD8_v2(b, 0, BYTES));  // on the legacy stream, for which nobody waits
  works(cuStreamSynchronize(blocking));
  works(cuMemcpyDtoHAsync_v2(y, b, BYTES, stream));
  works(cuStreamSynchronize(stream));
  ck_assert(y[1] == 2);
  works(cuStreamDestroy_v2(blocking));
  finish_with_arrays();
}
END_TEST

START_TEST(queries_are_not_ready_the_first_time) {
  start_with_arrays();
  void *event;
  float ms;
  works(cuEventCreate(&event, 0));
  works(cuEventQuery(event));
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, stream));
  works(cuEventRecord(event, stream));
  is(cuEventElapsedTime(&ms, event, event), NOT_READY);
  is(cuStreamQuery(stream), NOT_READY);
  is(cuEventQuery(event), NOT_READY);
  works(cuEventQuery(event));
  works(cuStreamQuery(stream));
  works(cuEventDestroy_v2(event));
  finish_with_arrays();
}
END_TEST

START_TEST(times_are_those_of_events_that_were_waited_for) {
  start_with_arrays();
  void *first, *last, *timeless;
  float ms = -1;
  works(cuEventCreate(&first, 0));
  works(cuEventCreate(&last, EVENT_BLOCKING));
  works(cuEventCreate(&timeless, EVENT_NO_TIMING));
  is(cuEventElapsedTime(&ms, first, last), INVALID_HANDLE);
  works(cuEventRecord(first, stream));
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, stream));
  works(cuEventRecord(last, stream));
  works(cuEventSynchronize(last));
  works(cuEventElapsedTime(&ms, first, last));
  ck_assert(ms >= 0);
  works(cuEventRecord(timeless, stream));
  works(cuEventSynchronize(timeless));
  is(cuEventElapsedTime(&ms, first, timeless), INVALID_HANDLE);
  works(cuEventDestroy_v2(first));
  works(cuEventDestroy_v2(last));
  works(cuEventDestroy_v2(timeless));
  finish_with_arrays();
}
END_TEST

// --- captures and graphs

static void *exec_of(void *graph) {
  void *exec;
  works(cuGraphInstantiateWithFlags(&exec, graph, 0));
  works(cuGraphDestroy(graph));
  return exec;
}

START_TEST(captured_work_is_done_by_each_launch_of_its_graph) {
  start_with_arrays();
  void *graph, *exec;
  size_t nodes;
  works(cuStreamBeginCapture_v2(stream, CAPTURE_THREAD_LOCAL));
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, stream));
  works(launch(a, b, stream));
  works(cuMemcpyDtoHAsync_v2(y, b, BYTES, stream));
  works(cuStreamEndCapture(stream, &graph));
  works(cuStreamSynchronize(stream));
  ck_assert(is_nan(first_of(b)));
  works(cuGraphGetNodes(graph, NULL, &nodes));
  ck_assert_uint_eq(nodes, 3);
  exec = exec_of(graph);
  works(cuGraphUpload(exec, stream));
  for (int i = 1; i < 4; i++) {
    x[1] = (float)i;
    works(cuGraphLaunch(exec, stream));
    ck_assert(is_nan(y[1]));
    works(cuStreamSynchronize(stream));
    ck_assert(y[1] == (float)(2 * i));
  }
  is(cuMemFree_v2(a), INVALID_VALUE);  // the graph may be launched again
  is(cuMemFreeHost(y), INVALID_VALUE);
  works(cuGraphExecDestroy(exec));
  is(cuGraphLaunch(exec, stream), INVALID_HANDLE);
  finish_with_arrays();
}
END_TEST

// Captures a copy to `a` on a second stream and a launch that reads it on the first; joined by events
// before and after, the first only when `is_ordered`.
static void *capture_fork(bool is_ordered) {
  void *graph, *second, *fork, *join;
  works(cuStreamCreate(&second, STREAM_NON_BLOCKING));
  works(cuEventCreate(&fork, 0));
  works(cuEventCreate(&join, 0));
  works(cuStreamBeginCapture_v2(stream, CAPTURE_THREAD_LOCAL));
  works(cuEventRecord(fork, stream));
  works(cuStreamWaitEvent(second, fork, 0));
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, second));
  works(cuEventRecord(join, second));
  if (is_ordered) works(cuStreamWaitEvent(stream, join, 0));
  works(launch(a, b, stream));
  works(cuStreamWaitEvent(stream, join, 0));
  works(cuStreamEndCapture(stream, &graph));
  is(cuEventSynchronize(join), CAPTURED_EVENT);
  is(cuStreamWaitEvent(stream, join, 0), CAPTURED_EVENT);
  works(cuEventDestroy_v2(fork));
  works(cuEventDestroy_v2(join));
  works(cuStreamDestroy_v2(second));
  return exec_of(graph);
}

START_TEST(nodes_without_an_order_are_done_in_another_one) {
  start_with_arrays();
  works(cuMemsetD8Async(a, 0, BYTES, stream));
  works(cuStreamSynchronize(stream));
  void *loose = capture_fork(false), *strict = capture_fork(true);
  works(cuGraphLaunch(loose, stream));
  works(cuStreamSynchronize(stream));
  ck_assert(first_of(b) == 0);
  works(cuGraphLaunch(strict, stream));
  works(cuStreamSynchronize(stream));
  ck_assert(first_of(b) == 2);
  works(cuGraphExecDestroy(loose));
  works(cuGraphExecDestroy(strict));
  finish_with_arrays();
}
END_TEST

// Ends a capture that something has broken.
static void end_broken_at(int error, int line) {
  void *graph = &graph;
  expect(cuStreamEndCapture(stream, &graph), error, "cuStreamEndCapture", line);
  expect(graph == NULL, true, "graph == NULL", line);
  expect(cuStreamEndCapture(stream, &graph), ILLEGAL_STATE, "cuStreamEndCapture once more", line);
}
#define end_broken(error) end_broken_at(error, __LINE__)

// 0: none, 1: it goes on, 2: it has been broken.
static int capture_status(void) {
  int status = -1;
  works(cuStreamIsCapturing(stream, &status));
  return status;
}

START_TEST(a_call_that_waits_breaks_a_capture) {
  start_with_arrays();
  Address at;
  for (int i = 0; i < 4; i++) {
    works(cuStreamBeginCapture_v2(stream, CAPTURE_THREAD_LOCAL));
    is(i == 0   ? cuStreamSynchronize(stream)
       : i == 1 ? cuMemAlloc_v2(&at, BYTES)
       : i == 2 ? cuCtxSynchronize()
                : cuMemcpyHtoD_v2(a, x, BYTES),
       CAPTURE_UNSUPPORTED);
    is(launch(a, b, stream), CAPTURE_INVALIDATED);
    is(capture_status(), 2);
    end_broken(CAPTURE_INVALIDATED);
    is(capture_status(), 0);
  }
  finish_with_arrays();
}
END_TEST

static void *end_elsewhere(void *to) {
  void *graph;
  cuCtxSetCurrent(context);
  *(int *)to = cuStreamEndCapture(stream, &graph);
  if (graph) cuGraphDestroy(graph);
  return NULL;
}

START_TEST(a_capture_ends_where_it_began) {
  start_with_arrays();
  void *second, *event, *graph;
  works(cuStreamCreate(&second, STREAM_NON_BLOCKING));
  works(cuEventCreate(&event, 0));
  is(cuStreamBeginCapture_v2(NULL, CAPTURE_THREAD_LOCAL), CAPTURE_UNSUPPORTED);
  is(cuStreamEndCapture(stream, &graph), ILLEGAL_STATE);
  // in another thread
  pthread_t thread;
  int error = 0;
  works(cuStreamBeginCapture_v2(stream, CAPTURE_THREAD_LOCAL));
  is(cuStreamBeginCapture_v2(stream, CAPTURE_THREAD_LOCAL), ILLEGAL_STATE);
  ck_assert_int_eq(pthread_create(&thread, NULL, end_elsewhere, &error), 0);
  pthread_join(thread, NULL);
  is(error, CAPTURE_WRONG_THREAD);
  end_broken(CAPTURE_INVALIDATED);
  works(cuStreamBeginCapture_v2(stream, CAPTURE_RELAXED));
  ck_assert_int_eq(pthread_create(&thread, NULL, end_elsewhere, &error), 0);
  pthread_join(thread, NULL);
  works(error);
  // in another stream, and with its work not joined
  works(cuStreamBeginCapture_v2(stream, CAPTURE_THREAD_LOCAL));
  works(cuEventRecord(event, stream));
  works(cuStreamWaitEvent(second, event, 0));
  works(launch(a, b, second));
  is(cuStreamEndCapture(second, &graph), CAPTURE_UNMATCHED);
  end_broken(CAPTURE_INVALIDATED);
  works(cuStreamBeginCapture_v2(stream, CAPTURE_THREAD_LOCAL));
  works(cuEventRecord(event, stream));
  works(cuStreamWaitEvent(second, event, 0));
  works(launch(a, b, second));
  end_broken(CAPTURE_UNJOINED);
  // with an event from outside
  works(cuEventRecord(event, second));
  works(cuStreamBeginCapture_v2(stream, CAPTURE_THREAD_LOCAL));
  is(cuStreamWaitEvent(stream, event, 0), CAPTURE_ISOLATION);
  end_broken(CAPTURE_INVALIDATED);
  works(cuEventDestroy_v2(event));
  works(cuStreamDestroy_v2(second));
  finish_with_arrays();
}
END_TEST

START_TEST(the_legacy_stream_does_not_wait_for_a_capture) {
  start_with_arrays();
  void *blocking, *graph;
  works(cuStreamCreate(&blocking, 0));
  works(cuStreamBeginCapture_v2(blocking, CAPTURE_RELAXED));
  is(launch(a, b, NULL), CAPTURE_IMPLICIT);
  is(cuStreamEndCapture(blocking, &graph), CAPTURE_INVALIDATED);
  works(cuStreamDestroy_v2(blocking));
  finish_with_arrays();
}
END_TEST

int main(void) {
  const TTest *const tests[] = {times_are_those_of_events_that_were_waited_for,
                                a_call_that_waits_breaks_a_capture, a_capture_ends_where_it_began,
                                the_legacy_stream_does_not_wait_for_a_capture, NULL};
  const TTest *const alone[] = {a_kernel_runs_in_every_order,
                                pinned_memory_is_read_late_and_other_memory_at_once,
                                pinned_memory_holds_nothing_until_its_copy_is_waited_for,
                                only_an_event_makes_a_stream_wait_for_another,
                                copies_come_first_where_nothing_holds_them,
                                the_work_of_others_comes_first_where_nothing_holds_it,
                                the_legacy_stream_and_those_that_block_wait_for_each_other,
                                queries_are_not_ready_the_first_time,
                                captured_work_is_done_by_each_launch_of_its_graph,
                                nodes_without_an_order_are_done_in_another_one,
                                NULL};
  return run_with_texts("order", tests, alone, NULL);
}
