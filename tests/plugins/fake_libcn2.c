/* A library of cn2.h without any engine, so that what reaches C can be looked at.
 *
 * A model file holds the manifest's JSON alone; a file named "status-4..." fails to open with that
 * status. A picture gets a detection per colour channel: the whole picture, scored by the channel's mean
 * / 256; one whose top left pixel is (1, 2, 3) fails. On a CUDA device "device memory" is read as host
 * memory. fake_live() is the number of models and contexts that are open. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cn2.h"

#ifndef FAKE_ABI
#define FAKE_ABI CN2_ABI_VERSION
#endif

enum { ROWS = 3 };
struct cn2_model {
  int on_cuda;
  char *manifest;
  char runtime[512];
};
struct cn2_context {
  cn2_model *model;
  int busy;
  cn2_timings timings;
  int32_t number[8], classes[8 * ROWS];
  float boxes[8 * ROWS * 4], scores[8 * ROWS];
};

static int live;
static _Thread_local char error[128];

static cn2_status fail(cn2_status status, const char *text) {
  snprintf(error, sizeof error, "fake: %s", text);
  return status;
}

CN2_API int fake_live(void) {
  return __atomic_load_n(&live, __ATOMIC_SEQ_CST);
}
static void count(int change) {
  __atomic_add_fetch(&live, change, __ATOMIC_SEQ_CST);
}

CN2_API const char *cn2_status_name(cn2_status status) {
  return status ? "not ok" : "ok";
}
CN2_API const char *cn2_last_error(void) {
  return error;
}
CN2_API uint32_t cn2_abi_version(void) {
  return FAKE_ABI;
}
CN2_API const char *cn2_version(void) {
  return "9.9.9";
}

CN2_API cn2_status cn2_set_log(cn2_log_callback callback, void *user, int32_t lowest_level) {
  if (callback && lowest_level <= CN2_LOG_WARNING)
    callback(user, CN2_LOG_WARNING, "a line of C");
  return CN2_OK;
}

CN2_API cn2_status cn2_model_open(const char *path, const cn2_model_options *options,
                                  cn2_model **model) {
  const char *name = strrchr(path, '/') + 1;
  if (strncmp(name, "status-", 7) == 0)
    return fail(atoi(name + 7), name);
  if (options->struct_size != sizeof *options)
    return fail(CN2_INVALID_ARGUMENT, "struct_size");
  FILE *file = fopen(path, "rb");
  if (!file)
    return fail(CN2_MODEL_ERROR, "no file");
  *model = calloc(1, sizeof **model);
  (*model)->manifest = calloc(1, 1 << 16);
  size_t size = fread((*model)->manifest, 1, (1 << 16) - 1, file);
  fclose(file);
  (void)size;
  (*model)->on_cuda = strncmp(options->device, "cuda", 4) == 0;
  snprintf((*model)->runtime, sizeof(*model)->runtime, "device %s, threads %d, standard_ops %d, %s",
           options->device, options->threads, options->standard_ops,
           options->runtime_path ? options->runtime_path : "null");
  count(1);
  return CN2_OK;
}

CN2_API void cn2_model_close(cn2_model *model) {
  if (!model)
    return;
  count(-1); /* its memory stays: contexts may outlive it */
}

CN2_API cn2_status cn2_model_get_info(const cn2_model *model, cn2_model_info *info) {
  (void)model;
  info->max_detections = ROWS;
  return CN2_OK;
}
CN2_API const char *cn2_model_manifest(const cn2_model *model) {
  return model->manifest;
}
CN2_API const char *cn2_model_class_name(const cn2_model *model, int32_t class_id) {
  return model && class_id < 3 ? "class" : NULL;
}
CN2_API int64_t cn2_model_category_id(const cn2_model *model, int32_t class_id) {
  return model ? (int64_t)class_id << 40 : -1;
}
CN2_API const char *cn2_model_runtime(const cn2_model *model) {
  return model->runtime;
}

CN2_API cn2_status cn2_resize(const cn2_image *image, int32_t interpolation, uint8_t *rgb,
                              int32_t width, int32_t height, size_t pitch) {
  (void)image, (void)interpolation, (void)rgb, (void)width, (void)height, (void)pitch;
  return CN2_OK;
}

CN2_API cn2_status cn2_context_create(cn2_model *model, cn2_context **context) {
  *context = calloc(1, sizeof **context);
  (*context)->model = model;
  count(1);
  return CN2_OK;
}

CN2_API void cn2_context_destroy(cn2_context *context) {
  if (!context)
    return;
  free(context);
  count(-1);
}

static void channel_means(const uint8_t *data, int width, int height, size_t pitch, int is_bgr,
                          float means[3]) {
  double sums[3] = {0, 0, 0};
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < 3 * width; ++x)
      sums[x % 3] += data[(size_t)y * pitch + (size_t)x];
  for (int c = 0; c < 3; ++c)
    means[is_bgr ? 2 - c : c] = (float)(sums[c] / ((double)width * height * 256));
}

/* One detection per channel whose mean is above the threshold, the best first. */
static int rank(const float means[3], float threshold, int order[3]) {
  int found = 0;
  for (int c = 0; c < 3; ++c)
    if (means[c] > threshold)
      order[found++] = c;
  for (int i = 1; i < found; ++i)
    for (int j = i; j > 0 && means[order[j]] > means[order[j - 1]]; --j) {
      int other = order[j];
      order[j] = order[j - 1];
      order[j - 1] = other;
    }
  return found;
}

static float threshold_of(const cn2_detect_options *options) {
  return options->score_threshold < 0 ? 0.05f : options->score_threshold;
}

static cn2_status detect_one(const cn2_context *context, const cn2_image *image, float threshold,
                             cn2_detection *detections, size_t *number) {
  if (image->struct_size != sizeof *image)
    return fail(CN2_INVALID_ARGUMENT, "struct_size");
  if (image->memory == CN2_CUDA && !context->model->on_cuda)
    return fail(CN2_UNAVAILABLE, "the picture is in CUDA memory, the model on the CPU");
  const uint8_t *data = image->data;
  if (data[0] == 1 && data[1] == 2 && data[2] == 3)
    return fail(CN2_INFERENCE_ERROR, "the engine");
  float means[3];
  int order[3];
  channel_means(data, image->width, image->height, image->pitch, image->format == CN2_BGR8, means);
  *number = (size_t)rank(means, threshold, order);
  for (size_t row = 0; row < *number; ++row) {
    cn2_detection found = {
        {0, 0, (float)image->width, (float)image->height}, means[order[row]], order[row]};
    detections[row] = found;
  }
  return CN2_OK;
}

CN2_API cn2_status cn2_detect(cn2_context *context, const cn2_image *images, size_t image_count,
                              const cn2_detect_options *options, cn2_detection *detections,
                              size_t capacity, size_t *counts) {
  if (__atomic_exchange_n(&context->busy, 1, __ATOMIC_SEQ_CST))
    return fail(CN2_INTERNAL_ERROR, "two threads in one context");
  cn2_status status = capacity < ROWS ? fail(CN2_INTERNAL_ERROR, "capacity") : CN2_OK;
  for (size_t i = 0; i < image_count && status == CN2_OK; ++i)
    status = detect_one(context, &images[i], threshold_of(options), detections + i * capacity,
                        &counts[i]);
  cn2_timings timings = {sizeof timings, 0.25f, 0.5f, 0.125f, 0.0f, 0.0f};
  context->timings = timings;
  __atomic_store_n(&context->busy, 0, __ATOMIC_SEQ_CST);
  return status;
}

CN2_API cn2_status cn2_context_get_timings(const cn2_context *context, cn2_timings *timings) {
  *timings = context->timings;
  return CN2_OK;
}

CN2_API cn2_status cn2_infer(cn2_context *context, const uint8_t *canvases, int32_t batch,
                             int32_t height, int32_t width, const int32_t *picture_sizes,
                             const cn2_detect_options *options, cn2_raw_detections *raw) {
  memset(context->boxes, 0, sizeof context->boxes);
  memset(context->scores, 0, sizeof context->scores);
  memset(context->classes, 0, sizeof context->classes);
  for (int32_t i = 0; i < batch; ++i) {
    float means[3];
    int order[3];
    const int32_t *size = picture_sizes + 2 * i;
    channel_means(canvases + (size_t)i * (size_t)height * (size_t)width * 3, size[1], size[0],
                  3 * (size_t)width, 0, means);
    context->number[i] = rank(means, threshold_of(options), order);
    for (int row = 0; row < context->number[i]; ++row) {
      context->scores[i * ROWS + row] = means[order[row]];
      context->classes[i * ROWS + row] = order[row];
      context->boxes[(i * ROWS + row) * 4 + 2] = (float)size[1];
      context->boxes[(i * ROWS + row) * 4 + 3] = (float)size[0];
    }
  }
  cn2_raw_detections found = {
      sizeof found, ROWS, context->number, context->boxes, context->scores, context->classes};
  *raw = found;
  return CN2_OK;
}
