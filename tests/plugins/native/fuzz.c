/* Call the public functions at random: fuzz MODEL.onnx MODEL.engine CALLS SEED
 *
 * Pointers are good or null, and memory is as large as the call says: pictures and canvases end where
 * their heap block ends, so that a sanitizer sees a byte too many. All else may be anything.
 * Prints how many calls of each function succeeded. A crash, or a finding of a sanitizer, is the
 * failure. */
#include <cn2.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  SIDE = 48,
  PITCH = 256,
  CANVASES = 2 * 96 * 96 * 3,
  IMAGES = 3,
  CAPACITY = 4,
  FUNCTIONS = 8,
  LONGER = 32
};

static uint64_t state;
static cn2_model *model;
static cn2_context *context;
static const char *paths[2];
static unsigned char *pixels, *written, *canvases; /* PITCH * SIDE * 2 bytes, as many, CANVASES */

/* xorshift64* */
static uint32_t draw(uint32_t below) {
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return (uint32_t)((state * 2685821657736338717u) >> 33) % below;
}

static int32_t draw_number(int32_t highest) {
  static const int32_t odd[] = {-1, 0, INT32_MIN, INT32_MAX, 65535, 65536, 7, -7};
  return draw(12) == 0 ? odd[draw(8)] : (int32_t)draw((uint32_t)highest + 1);
}

/* Sides of pictures are small, or such that no picture has: the pixels are all that there is. */
static int32_t draw_side(void) {
  static const int32_t odd[] = {-1, 0, INT32_MIN, INT32_MAX, 65536};
  return draw(16) == 0 ? odd[draw(5)] : 1 + (int32_t)draw(SIDE);
}

static float draw_threshold(void) {
  static const float odd[] = {-1.0f, 0.0f, 1.0f, 1e30f, -1e30f, 0.01f, 0.05f};
  const float zero = 0.0f;
  return draw(8) == 0 ? zero / zero : draw(2) ? odd[draw(7)] : (float)draw(1000) / 999.0f;
}

static size_t draw_pitch(void) {
  static const size_t odd[] = {1, SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 65535};
  return draw(12) == 0 ? odd[draw(4)] : draw(2) ? 0 : draw(PITCH + 1);
}

/* A struct of any size that a caller can have, at the start of `memory`, LONGER bytes longer than
 * it. */
static void resize_struct(void *memory, size_t known) {
  unsigned char *bytes = memory;
  uint32_t size = (uint32_t)known;
  if (draw(8) == 0) {
    size = draw((uint32_t)known + LONGER + 1);
    if (size > known && draw(2)) {
      bytes[known + draw(size - (uint32_t)known)] = 1;
    }
  }
  memcpy(memory, &size, sizeof(size));
}

#define STRUCT(type)                   \
  union {                              \
    type of;                           \
    char bytes[sizeof(type) + LONGER]; \
  }

/* The last bytes of a block that rows need; its start where no call can read them. */
static unsigned char *at_end(unsigned char *block, size_t row, size_t pitch, int32_t rows) {
  const size_t bytes = PITCH * SIDE * 2;
  const size_t apart = pitch == 0 ? row : pitch;
  if (rows < 1 || rows > 2 * SIDE || row > PITCH || apart > PITCH || apart < row) {
    return block;
  }
  return block + bytes - ((size_t)(rows - 1) * apart + row);
}

static size_t row_bytes(int32_t format, int32_t width) {
  static const int32_t bytes[] = {3, 3, 4, 4, 1, 1};
  return width < 1 || width > SIDE || format < 0 || format > CN2_NV12
             ? PITCH + 1
             : (size_t)(bytes[format] * width);
}

/* A second plane that follows the first one needs half as many rows again. A shorter struct has other
 * pitches than it says here: its pixels stay at the start, where all that can be read fits. */
static void place_pixels(cn2_image *image) {
  if (image->struct_size < sizeof(*image)) {
    return;
  }
  const size_t row = row_bytes(image->format, image->width);
  const int32_t rows = image->height, half = rows / 2;
  if (image->format == CN2_NV12 && image->chroma != NULL) {
    image->chroma =
        at_end(pixels, row, image->chroma_pitch ? image->chroma_pitch : image->pitch, half);
  }
  if (image->format == CN2_NV12 && image->chroma == NULL && rows > 1 && rows <= SIDE) {
    const size_t first = image->pitch ? image->pitch : row;
    const size_t second = image->chroma_pitch ? image->chroma_pitch : first;
    if (row <= first && first <= PITCH && row <= second && second <= PITCH) {
      image->data = at_end(pixels, row, second, half) - (size_t)rows * first;
    }
    return;
  }
  image->data = at_end(pixels, row, image->pitch, rows);
}

/* All but struct_size, which says what of it counts. */
static void fill_image(cn2_image *image) {
  image->format = draw_number(CN2_NV12);
  image->memory = draw(10) == 0 ? draw_number(2) : CN2_HOST;
  image->width = draw_side();
  image->height = draw_side();
  image->data = draw(20) ? pixels : NULL;
  image->pitch = draw_pitch();
  image->chroma = draw(2) ? pixels : NULL;
  image->chroma_pitch = draw_pitch();
  if (image->data != NULL) {
    place_pixels(image);
  }
}

static cn2_status call_open(void) {
  STRUCT(cn2_model_options) options;
  static const char *const devices[] = {NULL, "cpu", "cuda", "cuda:1", "cuda:x", "", "gpu"};
  cn2_model *opened = NULL;
  cn2_status status;
  memset(&options, 0, sizeof(options));
  options.of.threads = draw_number(4);
  options.of.device = devices[draw(7)];
  options.of.standard_ops = draw_number(1);
  resize_struct(&options, sizeof(options.of));
  status = cn2_model_open(draw(8) ? paths[draw(2)] : NULL, draw(3) ? &options.of : NULL,
                          draw(16) ? &opened : NULL);
  if (opened != NULL) { /* contexts may outlive their model */
    cn2_model_close(model);
    model = opened;
  }
  return status;
}

static cn2_status call_info(void) {
  STRUCT(cn2_model_info) info;
  const int32_t class_id = draw_number(4);
  const char *name = cn2_model_class_name(draw(8) ? model : NULL, class_id);
  memset(&info, 0, sizeof(info));
  resize_struct(&info, sizeof(info.of));
  if (name != NULL && strlen(name) + strlen(cn2_model_manifest(model)) == 0) {
    abort();
  }
  return cn2_model_category_id(model, class_id) >= -1
             ? cn2_model_get_info(draw(8) ? model : NULL, draw(8) ? &info.of : NULL)
             : CN2_OK;
}

static cn2_status call_create(void) {
  cn2_context *created = NULL;
  const cn2_status status = cn2_context_create(draw(8) ? model : NULL, draw(8) ? &created : NULL);
  if (created != NULL) {
    cn2_context_destroy(context);
    context = created;
  }
  return status;
}

static cn2_status call_resize(void) {
  const int32_t width = draw_side(), height = draw_side();
  const size_t pitch = draw_pitch();
  unsigned char *rgb = at_end(written, row_bytes(CN2_RGB8, width), pitch, height);
  STRUCT(cn2_image) image;
  memset(&image, 0, sizeof(image));
  resize_struct(&image, sizeof(image.of));
  fill_image(&image.of);
  return cn2_resize(draw(16) ? &image.of : NULL, draw_number(1), draw(16) ? rgb : NULL, width,
                    height, pitch);
}

static cn2_status call_detect(void) {
  STRUCT(cn2_image) images[IMAGES];
  STRUCT(cn2_detect_options) options;
  cn2_detection found[IMAGES * CAPACITY];
  size_t counts[IMAGES], count = draw(IMAGES + 1), capacity = draw(CAPACITY + 1), i;
  /* An array's elements lie as far apart as they are long. */
  const size_t stride = draw(4) ? sizeof(cn2_image) : sizeof(images[0]);
  memset(images, 0, sizeof(images));
  memset(&options, 0, sizeof(options));
  for (i = 0; i < IMAGES; i++) {
    cn2_image image = CN2_IMAGE_INIT;
    image.struct_size = (uint32_t)(draw(32) ? stride : draw(64));
    if (i > 0 && image.struct_size != (uint32_t)stride) {
      image.struct_size = (uint32_t)stride + 1;
    }
    fill_image(&image);
    memcpy((char *)images + i * stride, &image, sizeof(image));
  }
  options.of.score_threshold = draw_threshold();
  resize_struct(&options, sizeof(options.of));
  if (draw(64) == 0) { /* numbers that no memory holds: refused before a picture is looked at */
    const size_t huge = SIZE_MAX / (1 + draw(2));
    return cn2_detect(context, draw(2) ? &images[0].of : NULL, huge, NULL, found, draw(2), counts);
  }
  if (draw(64) == 0) {
    capacity = SIZE_MAX / (1 + draw(64));
    count = count > 1 ? 1 : count;
    if (capacity <= SIZE_MAX / sizeof(cn2_detection) / 2) {
      capacity = CAPACITY;
    }
  }
  return cn2_detect(draw(16) ? context : NULL, draw(16) ? &images[0].of : NULL, count,
                    draw(2) ? &options.of : NULL, draw(16) ? found : NULL, capacity,
                    draw(16) ? counts : NULL);
}

static cn2_status call_timings(void) {
  STRUCT(cn2_timings) timings;
  memset(&timings, 0, sizeof(timings));
  resize_struct(&timings, sizeof(timings.of));
  return cn2_context_get_timings(draw(8) ? context : NULL, draw(8) ? &timings.of : NULL);
}

static cn2_status call_infer(void) {
  STRUCT(cn2_raw_detections) raw;
  STRUCT(cn2_detect_options) options;
  int32_t sizes[4], i;
  const int32_t side = draw(2) ? 32 : 64;
  for (i = 0; i < 4; i++) {
    sizes[i] = draw(12) ? 1 + (int32_t)draw((uint32_t)side) : draw_number(70);
  }
  const int32_t batch = draw(8) ? 1 + (int32_t)draw(2) : (int32_t)draw(2) - 1;
  const int32_t height = draw(8) ? side : draw_number(96) % 97;
  const int32_t width = draw(8) ? side : draw_number(96) % 97;
  unsigned char *given = canvases;
  if (batch > 0 && height > 0 && width > 0) {
    given += CANVASES - batch * height * width * 3;
    given[0] = (unsigned char)(draw(8) ? draw(256) : 13);
    given[2] = 7;
  }
  memset(&raw, 0, sizeof(raw));
  memset(&options, 0, sizeof(options));
  options.of.score_threshold = draw_threshold();
  resize_struct(&options, sizeof(options.of));
  resize_struct(&raw, sizeof(raw.of));
  return cn2_infer(draw(16) ? context : NULL, draw(16) ? given : NULL, batch, height, width,
                   draw(16) ? sizes : NULL, draw(2) ? &options.of : NULL,
                   draw(16) ? &raw.of : NULL);
}

static void ignore_log(void *user, int32_t level, const char *message) {
  (void)user;
  if (level < 0 || message[0] == '\0') {
    abort();
  }
}

static cn2_status call_log(void) {
  return cn2_set_log(draw(2) ? ignore_log : NULL, NULL, draw_number(3));
}

int main(int count, char **arguments) {
  static cn2_status (*const functions[FUNCTIONS])(void) = {call_open,    call_info,   call_create,
                                                           call_resize,  call_detect, call_infer,
                                                           call_timings, call_log};
  static const char *const names[FUNCTIONS] = {"open",   "info",  "create",  "resize",
                                               "detect", "infer", "timings", "log"};
  long good[FUNCTIONS] = {0}, bad[FUNCTIONS] = {0}, calls, i;
  if (count != 5) {
    return 2;
  }
  paths[0] = arguments[1];
  paths[1] = arguments[2];
  calls = atol(arguments[3]);
  state = strtoull(arguments[4], NULL, 10) * 2654435769u + 1;
  pixels = malloc(PITCH * SIDE * 2);
  written = malloc(PITCH * SIDE * 2);
  canvases = calloc(CANVASES, 1);
  if (pixels == NULL || written == NULL || canvases == NULL) {
    return 2;
  }
  for (i = 0; i < PITCH * SIDE * 2; i++) {
    pixels[i] = (unsigned char)draw(256);
  }
  for (i = 0; i < calls; i++) {
    /* Opening reads a file, so it is called less often. */
    const uint32_t which = draw(100) == 0 ? 0 : 1 + draw(FUNCTIONS - 1);
    const cn2_status status = functions[which]();
    if (status == CN2_INTERNAL_ERROR || (status != CN2_OK && cn2_last_error()[0] == '\0')) {
      fprintf(stderr, "%s: %s\n", names[which], cn2_last_error());
      return 1;
    }
    ++*(status == CN2_OK ? &good[which] : &bad[which]);
  }
  cn2_context_destroy(context);
  cn2_model_close(model);
  free(pixels);
  free(written);
  free(canvases);
  for (i = 0; i < FUNCTIONS; i++) {
    printf("%s %ld %ld\n", names[i], good[i], bad[i]);
  }
  return 0;
}
