/* Find the objects in a picture: detect MODEL.onnx PICTURE.ppm [SCORE]
 *
 * Prints a line for each: score, class, and the box x0 y0 x1 y1 in pixels. */
#include <cn2.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 300 };

static int fail(const char *what) {
  fprintf(stderr, "detect: error: %s\n", what);
  return EXIT_FAILURE;
}

/* A whole number of a PPM's header; -1 where there is none. Comments are skipped. */
static int read_number(FILE *file) {
  int number = -1, letter = getc(file);
  while (letter == ' ' || letter == '\t' || letter == '\r' || letter == '\n' || letter == '#') {
    if (letter == '#') {
      while (letter != '\n' && letter != EOF) {
        letter = getc(file);
      }
    }
    letter = getc(file);
  }
  for (; letter >= '0' && letter <= '9' && number < 100000; letter = getc(file)) {
    number = 10 * (number < 0 ? 0 : number) + (letter - '0');
  }
  return number;
}

/* Read a binary PPM (P6, 8 bits); the caller frees the pixels. Null: it is none. */
static unsigned char *read_ppm(const char *path, int *width, int *height) {
  FILE *file = fopen(path, "rb");
  unsigned char *pixels = NULL;
  if (file == NULL) {
    return NULL;
  }
  if (getc(file) == 'P' && getc(file) == '6') {
    *width = read_number(file);
    *height = read_number(file);
    if (*width > 0 && *width <= 65535 && *height > 0 && *height <= 65535 &&
        read_number(file) == 255) {
      const size_t size = (size_t)*width * (size_t)*height * 3;
      pixels = malloc(size);
      if (pixels != NULL && fread(pixels, 1, size, file) != size) {
        free(pixels);
        pixels = NULL;
      }
    }
  }
  fclose(file);
  return pixels;
}

/* Detect and print; cn2_last_error() says what went wrong. */
static cn2_status detect(cn2_model *model, const cn2_image *image, float score) {
  static cn2_detection found[MOST];
  cn2_detect_options options = CN2_DETECT_OPTIONS_INIT;
  cn2_context *context = NULL; /* one per thread */
  size_t count = 0, i;
  cn2_status status = cn2_context_create(model, &context);
  options.score_threshold = score;
  if (status == CN2_OK) {
    status = cn2_detect(context, image, 1, &options, found, MOST, &count);
  }
  for (i = 0; status == CN2_OK && i < count && i < MOST; i++) {
    const cn2_detection *one = &found[i];
    printf("%.3f  %s  %.1f %.1f %.1f %.1f\n", one->score,
           cn2_model_class_name(model, one->class_id), one->box[0], one->box[1], one->box[2],
           one->box[3]);
  }
  cn2_context_destroy(context);
  return status;
}

int main(int count, char **arguments) {
  cn2_model *model = NULL;
  cn2_image image = CN2_IMAGE_INIT;
  unsigned char *pixels = NULL;
  int width = 0, height = 0;
  cn2_status status;
  if (count < 3 || count > 4) {
    return fail("expected MODEL.onnx PICTURE.ppm [SCORE]");
  }
  if (cn2_abi_version() != CN2_ABI_VERSION) {
    return fail("libcn2 is not of the version of cn2.h; compile again");
  }
  pixels = read_ppm(arguments[2], &width, &height);
  if (pixels == NULL) {
    return fail("expected a binary PPM (P6, 8 bits)");
  }
  image.format = CN2_RGB8;
  image.data = pixels;
  image.width = width;
  image.height = height;
  status = cn2_model_open(arguments[1], NULL, &model);
  if (status == CN2_OK) {
    status = detect(model, &image, count == 4 ? (float)atof(arguments[3]) : -1.0f);
  }
  cn2_model_close(model);
  free(pixels);
  return status == CN2_OK ? EXIT_SUCCESS : fail(cn2_last_error());
}
