#include "fake_cuda_work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_STREAMS = 3, LARGEST_NUMBER = 4096 };

typedef enum { COPY, SET, CALL, LAUNCH, RECORD, WAIT } kind;

typedef struct task {
  kind kind;
  void *to;
  const void *from;
  size_t bytes;
  unsigned char value;
  work function;
  void *data;
  graph *launched;
  event *recorded;
  stream *awaited;
  long place;
  struct task *next;
} task;

typedef struct block {
  const char *start;
  size_t bytes;
  struct block *next;
} block;

static stream defaults[DEFAULT_STREAMS]; /* 0 and 1 are one */
static stream *streams = defaults;       /* all */
static block *freed;
static double clock_ticks;
static unsigned long drawn; /* of the generator; 0: it has not begun */

stream *stream_of(void *handle) {
  const size_t number = (size_t)handle;
  if (defaults[1].next == NULL) {
    defaults[1].next = &defaults[2];
    defaults[0].next = &defaults[1];
  }
  return number >= LARGEST_NUMBER ? handle : number == 2 ? &defaults[2] : &defaults[1];
}

void add_stream(stream *made) {
  stream_of(NULL);
  made->next = streams;
  streams = made;
}

static void refuse(const char *what) {
  fprintf(stderr, "fake_libcuda: %s\n", what);
  abort();
}

void fake_cuda_check(const void *start, size_t bytes) {
  const block *one;
  for (one = freed; one != NULL; one = one->next) {
    if ((const char *)start < one->start + one->bytes && one->start < (const char *)start + bytes) {
      refuse("work on memory that was freed before it");
    }
  }
}

void forget_block(void *start, size_t bytes) {
  block *one = calloc(1, sizeof(block));
  one->start = start;
  one->bytes = bytes;
  one->next = freed;
  freed = one;
  memset(start, 0xDD, bytes);
}

static void launch(const graph *launched) {
  if (launched->destroyed) {
    refuse("a launch of a graph that was destroyed before it");
  }
  if (launched->filled) {
    launched->function(launched->data);
  }
}

static void do_task(const task *one) {
  switch (one->kind) {
    case COPY:
      fake_cuda_check(one->to, one->bytes);
      fake_cuda_check(one->from, one->bytes);
      memcpy(one->to, one->from, one->bytes);
      break;
    case SET:
      fake_cuda_check(one->to, one->bytes);
      memset(one->to, one->value, one->bytes);
      break;
    case CALL:
      one->function(one->data);
      break;
    case LAUNCH:
      launch(one->launched);
      break;
    case RECORD:
      one->recorded->time = clock_ticks++;
      break;
    case WAIT:
      finish(one->awaited, one->place);
      break;
  }
}

static void do_first(stream *on) {
  task *one = on->first;
  do_task(one);
  on->first = one->next;
  on->last = on->first == NULL ? NULL : on->last;
  on->done++;
  free(one);
}

void finish(stream *on, long place) {
  while (on->done < place) {
    do_first(on);
  }
}

int is_done(const event *one) {
  return one->on == NULL || one->on->done >= one->place;
}

long tasks_waiting(void) {
  const stream *one;
  long count = 0;
  for (one = streams; one != NULL; one = one->next) {
    count += one->queued - one->done;
  }
  return count;
}

/* xorshift64 */
static unsigned long draw(unsigned long below) {
  drawn ^= drawn << 13;
  drawn ^= drawn >> 7;
  drawn ^= drawn << 17;
  return drawn % below;
}

static void do_drawn(const char *seed) {
  stream *one;
  if (drawn == 0) {
    drawn = 2 * strtoul(seed, NULL, 10) + 1;
  }
  for (one = streams; one != NULL; one = one->next) {
    finish(one, one->done + (long)draw((unsigned long)(one->queued - one->done) + 1));
  }
}

static void queue(stream *on, task made) {
  const char *order = getenv("CN2_FAKE_CUDA_ORDER");
  task *one = malloc(sizeof(task));
  *one = made;
  one->next = NULL;
  *(on->first == NULL ? &on->first : &on->last->next) = one;
  on->last = one;
  on->queued++;
  if (order == NULL || strcmp(order, "late") == 0) {
    return;
  }
  if (strcmp(order, "early") == 0) {
    finish(on, on->queued);
  } else {
    do_drawn(order);
  }
}

void queue_copy(stream *on, void *to, const void *from, size_t bytes) {
  const task one = {.kind = COPY, .to = to, .from = from, .bytes = bytes};
  queue(on, one);
}

void queue_set(stream *on, void *to, unsigned char value, size_t bytes) {
  const task one = {.kind = SET, .to = to, .value = value, .bytes = bytes};
  queue(on, one);
}

void queue_call(stream *on, work function, void *data) {
  const task one = {.kind = CALL, .function = function, .data = data};
  queue(on, one);
}

void queue_launch(stream *on, graph *launched) {
  const task one = {.kind = LAUNCH, .launched = launched};
  queue(on, one);
}

void queue_record(stream *on, event *recorded) {
  const task one = {.kind = RECORD, .recorded = recorded};
  recorded->on = on;
  recorded->place = on->queued + 1;
  queue(on, one);
}

void queue_wait(stream *on, const event *awaited) {
  const task one = {.kind = WAIT, .awaited = awaited->on, .place = awaited->place};
  if (awaited->on != NULL) {
    queue(on, one);
  }
}
