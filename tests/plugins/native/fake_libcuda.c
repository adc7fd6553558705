/* NVIDIA's driver for tests: one device, whose memory is the host's. What is asked of a stream is
 * done at once, or kept for its graph while it is captured. A call with no context current fails, and
 * so does what $CN2_FAKE_CUDA_FAILS names; fake_cuda_log tells what was done. */
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum {
  NO_DEVICE = 100,
  BAD_DEVICE = 101,
  NO_CONTEXT = 201,
  BAD_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_SUPPORTED = 801
};

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

typedef void (*work)(void *);

typedef struct graph {
  work function;
  void *data;
  int filled;
} graph;

typedef struct stream {
  graph *captured; /* not null: what comes is kept */
  long used;       /* calls that name it */
  struct stream *next_destroyed;
} stream;

static __thread int depth; /* contexts that are current */
static long live;          /* objects and blocks of memory that were not given back */
static char done[1 << 16];
static stream *destroyed;   /* streams, kept so that their use is seen */
static long used_destroyed; /* calls that named one of them */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards done, destroyed */

/* The calls since this was last asked, each a word, as far as they find room. */
const char *fake_cuda_log(void) {
  static char copy[sizeof(done)];
  pthread_mutex_lock(&mutex);
  strcpy(copy, done);
  done[0] = 0;
  pthread_mutex_unlock(&mutex);
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

/* Null and the numbers of default streams are no objects. */
static stream *own_stream(void *on) {
  return (size_t)on < 4096 ? NULL : on;
}

static void use(void *on) {
  stream *one;
  if (own_stream(on) != NULL) {
    own_stream(on)->used++;
  }
  pthread_mutex_lock(&mutex);
  for (one = destroyed; one != NULL; one = one->next_destroyed) {
    used_destroyed += one == on;
  }
  pthread_mutex_unlock(&mutex);
}

static int fails(const char *name) {
  const char *asked = getenv("CN2_FAKE_CUDA_FAILS");
  return asked != NULL && strcmp(asked, name) == 0;
}

/* Note a call; its status. */
static int note(const char *name) {
  pthread_mutex_lock(&mutex);
  if (strlen(done) + strlen(name) + 2 < sizeof(done)) {
    strcat(strcat(done, done[0] ? " " : ""), name);
  }
  pthread_mutex_unlock(&mutex);
  if (fails(name)) {
    return NOT_SUPPORTED;
  }
  return depth > 0 ? 0 : NO_CONTEXT;
}

static int make(const char *name, void **object, size_t size) {
  const int status = note(name);
  if (status != 0) {
    return status;
  }
  *object = calloc(1, size);
  __sync_fetch_and_add(&live, 1);
  return 0;
}

static int end(void *object) {
  free(object);
  __sync_fetch_and_sub(&live, 1);
  return depth > 0 ? 0 : NO_CONTEXT;
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

int cuMemcpy2D_v2(const copy_2d *copy) {
  size_t row;
  if (depth != 1 || copy->source_kind != 2 || copy->target_kind != 1) {
    return NO_CONTEXT; /* no context, or another kind of copy */
  }
  for (row = 0; row < copy->height; row++) {
    memcpy((char *)copy->target_host + row * copy->target_pitch,
           (const char *)(size_t)copy->source_device + row * copy->source_pitch, copy->width_bytes);
  }
  return 0;
}

int cuMemAlloc_v2(unsigned long long *pointer, size_t bytes) {
  void *memory = NULL;
  const int status = fails("memory") ? OUT_OF_MEMORY : make("allocate", &memory, bytes);
  if (status == 0) {
    memset(memory, 0xCD, bytes);
    *pointer = (size_t)memory;
  }
  return status;
}

int cuMemFree_v2(unsigned long long pointer) {
  return end((void *)(size_t)pointer);
}

int cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) {
  return fails("memory") ? OUT_OF_MEMORY : flags != 0 ? BAD_VALUE : make("pin", pointer, bytes);
}

int cuMemFreeHost(void *pointer) {
  return end(pointer);
}

/* Only what TensorRT does is captured by libcn2. */
static int copy_now(const char *name, void *to, const void *from, size_t bytes, stream *on) {
  const int status = note(name);
  use(on);
  if (status == 0 && own_stream(on) != NULL && on->captured != NULL) {
    return NOT_SUPPORTED;
  }
  if (status == 0) {
    memcpy(to, from, bytes);
  }
  return status;
}

int cuMemcpyHtoDAsync_v2(unsigned long long to, const void *from, size_t bytes, void *on) {
  return copy_now("upload", (void *)(size_t)to, from, bytes, on);
}

int cuMemcpyDtoHAsync_v2(void *to, unsigned long long from, size_t bytes, void *on) {
  return copy_now("download", to, (const void *)(size_t)from, bytes, on);
}

int cuMemsetD8Async(unsigned long long to, unsigned char value, size_t bytes, void *on) {
  const int status = note("set");
  (void)on;
  if (status == 0) {
    memset((void *)(size_t)to, value, bytes);
  }
  return status;
}

/* A pointer below 4096 is of no device. */
int cuPointerGetAttribute(void *value, int attribute, unsigned long long pointer) {
  *(int *)value = 0;
  return attribute == 9 && pointer >= 4096 ? 0 : BAD_VALUE;
}

int cuStreamCreate(void **created, unsigned flags) {
  return flags != 1 ? BAD_VALUE : make("stream", created, sizeof(stream));
}

int cuStreamDestroy_v2(void *on) {
  pthread_mutex_lock(&mutex);
  ((stream *)on)->next_destroyed = destroyed;
  destroyed = on;
  pthread_mutex_unlock(&mutex);
  return end(NULL);
}

int cuStreamSynchronize(void *on) {
  use(on);
  return note("synchronize");
}

/* What libnvinfer of the tests calls to have its work done in a stream's order. */
int cuLaunchHostFunc(void *on, work function, void *data) {
  graph *captured = own_stream(on) == NULL ? NULL : own_stream(on)->captured;
  if (captured == NULL) {
    function(data);
  } else if (captured->filled) {
    return NOT_SUPPORTED;
  } else {
    captured->function = function;
    captured->data = data;
    captured->filled = 1;
  }
  return note(captured == NULL ? "run" : "record");
}

int cuEventCreate(void **event, unsigned flags) {
  return flags != 0 ? BAD_VALUE : make("event", event, sizeof(double));
}

int cuEventDestroy_v2(void *event) {
  return end(event);
}

int cuEventRecord(void *event, void *on) {
  static double clock;
  (void)on;
  *(double *)event = clock++;
  return depth > 0 ? 0 : NO_CONTEXT;
}

int cuEventSynchronize(void *event) {
  return *(double *)event < 0 ? BAD_VALUE : note("await");
}

int cuEventElapsedTime(float *ms, void *start, void *finish) {
  *ms = (float)(*(double *)finish - *(double *)start);
  return depth > 0 ? 0 : NO_CONTEXT;
}

int cuStreamBeginCapture_v2(void *on, unsigned mode) {
  void *made = NULL;
  const int status = mode != 1 ? BAD_VALUE : make("begin_capture", &made, sizeof(graph));
  if (status == 0) {
    ((stream *)on)->captured = made;
  }
  return status;
}

int cuStreamEndCapture(void *on, void **captured) {
  *captured = ((stream *)on)->captured;
  ((stream *)on)->captured = NULL;
  return note("end_capture");
}

int cuGraphInstantiateWithFlags(void **executable, void *captured, unsigned long long flags) {
  const int status = flags != 0 ? BAD_VALUE : make("instantiate", executable, sizeof(graph));
  if (status == 0) {
    memcpy(*executable, captured, sizeof(graph));
  }
  return status;
}

int cuGraphLaunch(void *executable, void *on) {
  graph *launched = executable;
  use(on);
  if (launched->filled) {
    launched->function(launched->data);
  }
  return note("launch");
}

int cuGraphDestroy(void *captured) {
  return end(captured);
}

int cuGraphExecDestroy(void *executable) {
  return end(executable);
}
