/* The order of work in the driver for tests. What is asked of a stream is queued, and done when
 * something that orders it needs it: a wait of the host's, or of a stream that the host waits for. So
 * what nobody waits for never happens, and a buffer that is used again too early is read, or
 * written, with what came later. $CN2_FAKE_CUDA_ORDER: "late" (also without it) does that; "early"
 * does all at once; a number draws, with each call, what is done of the streams that have work.
 *
 * The streams that programs make do not wait for CUDA's default stream, nor it for them. Work on
 * memory that was freed, or a graph that was destroyed, ends the process.
 *
 * All of it under the driver's lock. */
#ifndef CN2_FAKE_CUDA_WORK_H
#define CN2_FAKE_CUDA_WORK_H

#include <stddef.h>

typedef void (*work)(void*);

typedef struct graph {
  work function;
  void* data;
  int filled, destroyed;
} graph;

typedef struct stream {
  graph* captured; /* not null: what comes is kept */
  long used;       /* calls that name it */
  int destroyed;
  long queued, done; /* tasks */
  struct task *first, *last;
  struct stream* next;
} stream;

typedef struct event {
  stream* on; /* where it was last recorded; null: never */
  long place; /* among the tasks there */
  double time;
} event;

/* For functions that are queued: end the process where memory that they use was freed. */
void fake_cuda_check(const void* start, size_t bytes);

#pragma GCC visibility push(hidden)

/* A stream by its handle; null and the numbers of default streams are some, too. */
stream* stream_of(void* handle);
void add_stream(stream* made);

/* Queue a task. */
void queue_copy(stream* on, void* to, const void* from, size_t bytes);
void queue_set(stream* on, void* to, unsigned char value, size_t bytes);
void queue_call(stream* on, work function, void* data);
void queue_launch(stream* on, graph* launched);
void queue_record(stream* on, event* recorded);
void queue_wait(stream* on, const event* awaited);

/* Do what is queued on a stream, up to a task. */
void finish(stream* on, long place);
int is_done(const event* one);

/* A block of memory is given back: it stays, with other contents. */
void forget_block(void* block, size_t bytes);

long tasks_waiting(void);

#pragma GCC visibility pop

#endif /* CN2_FAKE_CUDA_WORK_H */
