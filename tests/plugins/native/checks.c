/* What needs the stub engine: memory that runs out at any allocation, none in the steady state,
 * device memory (with fake_libcuda.c), engines, runs that fail. checks MODEL.onnx MODEL.engine */
#include <cn2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cn2_test_fail_allocation(long count);

enum { WIDTH = 96, HEIGHT = 64, MOST_ALLOCATIONS = 100000 };

#define CHECK(condition)                                                              \
  if (!(condition)) {                                                                 \
    fprintf(stderr, "line %d: not %s; %s\n", __LINE__, #condition, cn2_last_error()); \
    exit(1);                                                                          \
  }

static unsigned char pixels[WIDTH * HEIGHT * 3];

static cn2_image make_image(int32_t memory) {
  cn2_image image = CN2_IMAGE_INIT;
  image.memory = memory;
  image.data = pixels;
  image.width = WIDTH;
  image.height = HEIGHT;
  return image;
}

typedef struct {
  const char *path;
  cn2_model *model;
  cn2_context *context;
  size_t count;
} session;

static cn2_status open_model(session *own) {
  return cn2_model_open(own->path, NULL, &own->model);
}

static cn2_status create_context(session *own) {
  return cn2_context_create(own->model, &own->context);
}

/* A picture of each format, on two canvases. */
static cn2_status detect_all(session *own) {
  cn2_image images[CN2_NV12 + 1];
  cn2_detection found[2 * (CN2_NV12 + 1)];
  size_t counts[CN2_NV12 + 1];
  int32_t format;
  cn2_status status;
  for (format = CN2_RGB8; format <= CN2_NV12; format++) {
    images[format] = make_image(CN2_HOST);
    images[format].format = format;
    images[format].width = format % 2 ? 48 : 32;
    images[format].height = 40;
  }
  status = cn2_detect(own->context, images, CN2_NV12 + 1, NULL, found, 2, counts);
  own->count = counts[0];
  return status;
}

static cn2_status resize_all(session *own) {
  static unsigned char rgb[31 * 21 * 3];
  const cn2_image image = make_image(CN2_HOST);
  const cn2_status status = cn2_resize(&image, CN2_ANTIALIAS, rgb, 31, 21, 0);
  (void)own;
  return status != CN2_OK ? status : cn2_resize(&image, CN2_LINEAR, rgb, 31, 21, 0);
}

/* Let the first allocation fail, then the second, ..., until the call succeeds; how many there
 * are. */
static long run_out_of_memory(cn2_status (*call)(session *), session *own) {
  long count;
  for (count = 0; count < MOST_ALLOCATIONS; count++) {
    cn2_status status;
    cn2_test_fail_allocation(count);
    status = call(own);
    cn2_test_fail_allocation(-1);
    if (status == CN2_OK) {
      return count;
    }
    CHECK(status == CN2_OUT_OF_MEMORY);
    CHECK(strstr(cn2_last_error(), "out of memory") != NULL);
  }
  CHECK(0);
  return -1;
}

static void check_memory(const char *path) {
  session own = {0};
  own.path = path;
  CHECK(run_out_of_memory(open_model, &own) > 10);
  CHECK(run_out_of_memory(create_context, &own) > 1);
  CHECK(run_out_of_memory(detect_all, &own) > 5);
  CHECK(run_out_of_memory(detect_all, &own) == 0); /* the steady state */
  CHECK(run_out_of_memory(resize_all, &own) > 5);
  CHECK(own.count >= 1);
  cn2_context_destroy(own.context);
  cn2_model_close(own.model);
}

static void check_failing_run(const char *path) {
  session own = {0};
  cn2_image image = make_image(CN2_HOST);
  cn2_detection found[2];
  size_t count = 0;
  own.path = path;
  CHECK(open_model(&own) == CN2_OK && create_context(&own) == CN2_OK);
  pixels[0] = 13, pixels[1] = 0, pixels[2] = 7;
  CHECK(cn2_detect(own.context, &image, 1, NULL, found, 2, &count) == CN2_INFERENCE_ERROR);
  pixels[0] = 200;
  CHECK(cn2_detect(own.context, &image, 1, NULL, found, 2, &count) == CN2_OK && count >= 1);
  CHECK(found[0].box[2] == WIDTH && found[0].box[3] == HEIGHT);
  cn2_context_destroy(own.context);
  cn2_model_close(own.model);
}

static void check_device_memory(const char *path, const char *device, cn2_status expected) {
  cn2_model_options options = CN2_MODEL_OPTIONS_INIT;
  session own = {0};
  cn2_image images[3];
  cn2_detection found[6];
  size_t counts[3] = {0}, i;
  cn2_status status;
  options.device = device;
  CHECK(cn2_model_open(path, &options, &own.model) == CN2_OK);
  CHECK(create_context(&own) == CN2_OK);
  images[0] = make_image(CN2_CUDA);
  images[1] = make_image(CN2_HOST);
  images[2] = make_image(CN2_CUDA);
  images[2].format = CN2_NV12;
  images[2].pitch = 128;
  images[2].height = 40;
  status = cn2_detect(own.context, images, 3, NULL, found, 2, counts);
  CHECK(status == expected);
  for (i = 0; status == CN2_OK && i < counts[0]; i++) {
    CHECK(memcmp(&found[i], &found[2 + i], sizeof(found[i])) == 0);
  }
  CHECK(status != CN2_OK || (counts[0] == 2 && counts[1] == 2 && counts[2] >= 1));
  cn2_context_destroy(own.context);
  cn2_model_close(own.model);
}

int main(int count, char **arguments) {
  size_t i;
  if (count != 4) {
    return 2;
  }
  for (i = 0; i < sizeof(pixels); i++) {
    pixels[i] = (unsigned char)(100 + i % 100);
  }
  check_memory(arguments[1]);
  check_memory(arguments[2]);
  check_failing_run(arguments[1]);
  check_device_memory(arguments[1], "cpu", CN2_UNAVAILABLE);
  check_device_memory(arguments[1], "cuda:1", CN2_UNAVAILABLE); /* there is no second one */
  check_device_memory(arguments[1], "cuda",
                      strcmp(arguments[3], "cuda") == 0 ? CN2_OK : CN2_UNAVAILABLE);
  puts("all checks passed");
  return 0;
}
