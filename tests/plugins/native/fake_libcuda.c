/* NVIDIA's driver for tests: one device, whose memory is the host's. What is asked of a stream is
 * queued (fake_cuda_work.h), or kept for its graph while it is captured. A call with no context
 * current fails, and so does what $CN2_FAKE_CUDA_FAILS names; fake_cuda_log tells what was asked. */
#include "fake_libcuda.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  size_t source_x, source_y;
  unsigned source_kind;
  const void *source_host;
  unsigned long long source_device;
  void *source_array;
  size_t source_pitch;
  size_t target_x, target_y;
  unsigned target_kind;
  void *target_host;
  unsigned long long target_device;
  void *target_array;
  size_t target_pitch;
  size_t width_bytes, height;
} copy_2d;

/* Before each block of memory. */
typedef struct block_head {
  size_t bytes, unused;
} block_head;

static __thread int depth; /* contexts that are current */
static long live;          /* objects and blocks of memory that were not given back */
static char done[1 << 16];
static long used_destroyed; /* calls that named a stream that was destroyed */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards done, and all work */

void lock(void) {
  pthread_mutex_lock(&mutex);
}

void unlock(void) {
  pthread_mutex_unlock(&mutex);
}

/* The calls since this was last asked, each a word, as far as they find room. */
const char *fake_cuda_log(void) {
  static char copy[sizeof(done)];
  lock();
  strcpy(copy, done);
  done[0] = 0;
  unlock();
  return copy;
}

long fake_cuda_live(void) {
  return live;
}

/* How many calls were made on a stream. */
long fake_cuda_used(const stream *on) {
  return on->used;
}

long fake_cuda_used_destroyed(void) {
  return used_destroyed;
}

/* Calls that were queued and not done. */
long fake_cuda_waiting(void) {
  long count;
  lock();
  count = tasks_waiting();
  unlock();
  return count;
}

stream *lock_stream(void *handle) {
  stream *on;
  lock();
  on = stream_of(handle);
  on->used++;
  used_destroyed += on->destroyed;
  return on;
}

static int fails(const char *name) {
  const char *asked = getenv("CN2_FAKE_CUDA_FAILS");
  return asked != NULL && strcmp(asked, name) == 0;
}

int note(const char *name) {
  lock();
  if (strlen(done) + strlen(name) + 2 < sizeof(done)) {
    strcat(strcat(done, done[0] ? " " : ""), name);
  }
  unlock();
  if (fails(name)) {
    return NOT_SUPPORTED;
  }
  return depth > 0 ? 0 : NO_CONTEXT;
}

int make(const char *name, void **object, size_t size) {
  const int status = note(name);
  if (status != 0) {
    return status;
  }
  *object = calloc(1, size);
  __sync_fetch_and_add(&live, 1);
  return 0;
}

int end(void *object) {
  lock();
  forget_block(object, 0);
  unlock();
  __sync_fetch_and_sub(&live, 1);
  return depth > 0 ? 0 : NO_CONTEXT;
}

int has_context(void) {
  return depth > 0;
}

int cuInit(unsigned flags) {
  return fails("init") ? NO_DEVICE : flags == 0 ? 0 : BAD_VALUE;
}

int cuGetErrorName(int error, const char **name) {
  *name = error == OUT_OF_MEMORY   ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == NOT_SUPPORTED ? "CUDA_ERROR_NOT_SUPPORTED"
          : error == NO_DEVICE     ? "CUDA_ERROR_NO_DEVICE"
                                   : "CUDA_ERROR_OF_TESTS";
  return 0;
}

int cuDeviceGetCount(int *count) {
  *count = fails("count") ? 0 : 1;
  return 0;
}

int cuDeviceGet(int *device, int number) {
  *device = number;
  return number == 0 ? 0 : BAD_DEVICE;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
  static int one;
  *context = &one;
  __sync_fetch_and_add(&live, 1);
  return device;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
  __sync_fetch_and_sub(&live, 1);
  return device;
}

int cuCtxPushCurrent_v2(void *context) {
  if (fails("push")) {
    return NOT_SUPPORTED;
  }
  depth++;
  return context == NULL;
}

int cuCtxPopCurrent_v2(void **context) {
  *context = NULL;
  depth--;
  return 0;
}

/* It comes after what is on the default stream. */
int cuMemcpy2D_v2(const copy_2d *copy) {
  size_t row;
  stream *on;
  if (depth != 1 || copy->source_kind != 2 || copy->target_kind != 1) {
    return NO_CONTEXT; /* no context, or another kind of copy */
  }
  on = lock_stream(NULL);
  finish(on, on->queued);
  unlock();
  for (row = 0; row < copy->height; row++) {
    memcpy((char *)copy->target_host + row * copy->target_pitch,
           (const char *)(size_t)copy->source_device + row * copy->source_pitch, copy->width_bytes);
  }
  return 0;
}

static int make_block(const char *name, void **memory, size_t bytes) {
  void *made = NULL;
  const int status =
      fails("memory") ? OUT_OF_MEMORY : make(name, &made, sizeof(block_head) + bytes);
  if (status == 0) {
    ((block_head *)made)->bytes = bytes;
    *memory = (block_head *)made + 1;
    memset(*memory, 0xCD, bytes);
  }
  return status;
}

static int end_block(void *memory) {
  lock();
  forget_block(memory, ((block_head *)memory - 1)->bytes);
  unlock();
  return end((block_head *)memory - 1);
}

int cuMemAlloc_v2(unsigned long long *pointer, size_t bytes) {
  void *memory = NULL;
  const int status = make_block("allocate", &memory, bytes);
  *pointer = status == 0 ? (size_t)memory : *pointer;
  return status;
}

int cuMemFree_v2(unsigned long long pointer) {
  return end_block((void *)(size_t)pointer);
}

int cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
  return flags != 0 ? BAD_VALUE : make_block("pin", pointer, bytes);
}

int cuMemFreeHost(void *pointer) {
  return end_block(pointer);
}

/* Only what TensorRT does is captured by libcn2. */
static int copy(const char *name, void *to, const void *from, size_t bytes, void *handle) {
  int status = note(name);
  stream *on = lock_stream(handle);
  if (status == 0 && on->captured != NULL) {
    status = NOT_SUPPORTED;
  } else if (status == 0) {
    queue_copy(on, to, from, bytes);
  }
  unlock();
  return status;
}

int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t bytes, void *on) {
  return copy("upload", (void *)(size_t)to, from, bytes, on);
}

int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t bytes, void *on) {
  return copy("download", to, (const void *)(size_t)from, bytes, on);
}

int cuMemsetD8Async(unsigned long long to, unsigned char value, size_t bytes, void *handle) {
  const int status = note("set");
  stream *on = lock_stream(handle);
  if (status == 0) {
    queue_set(on, (void *)(size_t)to, value, bytes);
  }
  unlock();
  return status;
}

/* A pointer below 4096 is of no device. */
int cuPointerGetAttribute(void *value, int attribute, unsigned long long pointer) {
  *(int *)value = 0;
  return attribute == 9 && pointer >= 4096 ? 0 : BAD_VALUE;
}
