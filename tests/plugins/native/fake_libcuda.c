/* NVIDIA's driver for tests: one device, whose memory is the host's; copies that are not from the
 * device fail. */
#include <stddef.h>
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

static int depth; /* contexts that are current */

int cuInit(unsigned flags) {
  return flags == 0 ? 0 : 1;
}

int cuDeviceGet(int *device, int number) {
  *device = number;
  return number == 0 ? 0 : 101; /* no such device */
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
  static int one;
  *context = &one;
  return device;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
  return device;
}

int cuCtxPushCurrent_v2(void *context) {
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
    return 201; /* no context, or another kind of copy */
  }
  for (row = 0; row < copy->height; row++) {
    memcpy((char *)copy->target_host + row * copy->target_pitch,
           (const char *)(size_t)copy->source_device + row * copy->source_pitch, copy->width_bytes);
  }
  return 0;
}
