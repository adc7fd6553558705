// The boundary to C: pointers and structs are checked, every exception becomes a status and a text.
#include <cn2.h>

#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>

#include "context.h"
#include "error.h"
#include "last_error.h"
#include "log.h"
#include "model.h"
#include "resize.h"
#include "structs.h"

struct cn2_model {
  std::shared_ptr<const cn2::Model> shared;
};

struct cn2_context {
  cn2::Context context;
};

namespace {

constexpr int32_t kMostThreads = 1024;

cn2_status failed(cn2_status status, const char* message) noexcept {
  cn2::set_last_error(message);
  return status;
}

// Run a function's body; its status.
template <class Body>
cn2_status guard(const Body& body) noexcept {
  try {
    body();
    return CN2_OK;
  } catch (const cn2::Error& error) {
    return failed(error.status, error.message.c_str());
  } catch (const std::bad_alloc&) {
    return failed(CN2_OUT_OF_MEMORY, "out of memory");
  } catch (const std::length_error&) {
    return failed(CN2_OUT_OF_MEMORY, "out of memory: more than an array can hold");
  } catch (const std::exception& error) {
    return failed(CN2_INTERNAL_ERROR, error.what());
  } catch (...) {
    return failed(CN2_INTERNAL_ERROR, "an exception of unknown type");
  }
}

void check_pointer(const void* pointer, const char* name) {
  if (pointer == nullptr) {
    cn2::invalid(name, ": expected a pointer, got null");
  }
}

cn2::EngineOptions read_options(const cn2_model_options* given) {
  const cn2_model_options defaults = CN2_MODEL_OPTIONS_INIT;
  const cn2_model_options options =
      given == nullptr ? defaults : cn2::read_struct(given, defaults, {"options"});
  if (options.threads < 0 || options.threads > kMostThreads) {
    cn2::invalid("threads: expected 0 (one per core) to ", kMostThreads, ", got ", options.threads);
  }
  cn2::EngineOptions result;
  result.threads = options.threads;
  result.cuda_device = cn2::parse_device(options.device == nullptr ? "cpu" : options.device);
  result.device_given = options.device != nullptr;
  result.runtime_path = options.runtime_path == nullptr ? "" : options.runtime_path;
  result.standard_ops = options.standard_ops != 0;
  return result;
}

cn2::CallOptions read_call_options(const cn2_detect_options* given) {
  const cn2_detect_options defaults = CN2_DETECT_OPTIONS_INIT;
  const cn2_detect_options options =
      given == nullptr ? defaults : cn2::read_struct(given, defaults, {"options"});
  return {options.score_threshold, options.cuda_stream};
}

cn2_model_info describe(const cn2::Manifest& manifest) {
  const cn2::Size fixed = manifest.canvas.fixed.value_or(cn2::Size{});
  cn2_model_info info = CN2_MODEL_INFO_INIT;
  info.class_count = static_cast<int32_t>(manifest.class_names.size());
  info.max_detections = manifest.detections;
  info.proposals = manifest.proposals;
  info.batch = manifest.batch;
  info.canvas_height = fixed.height;
  info.canvas_width = fixed.width;
  info.canvas_divisor = manifest.canvas.divisor;
  info.short_edge = manifest.canvas.short_edge;
  info.long_edge = manifest.canvas.long_edge;
  info.interpolation = manifest.canvas.interpolation;
  info.score_threshold = manifest.score_threshold;
  info.lowest_score_threshold = manifest.lowest_score_threshold;
  return info;
}

bool has_class(const cn2_model* model, int32_t class_id) {
  return model != nullptr && class_id >= 0 &&
         static_cast<size_t>(class_id) < model->shared->manifest.class_names.size();
}

void check_room(size_t images, const cn2_detection* detections, size_t capacity) {
  if (capacity > 0 && images > 0) {
    check_pointer(detections, "detections");
  }
  const size_t most = std::numeric_limits<size_t>::max() / sizeof(cn2_detection);
  if (images > 0 && capacity > most / images) {
    cn2::invalid("capacity: expected what memory can hold, got ", capacity, " for each of ", images,
                 " pictures");
  }
}

cn2::Target read_target(uint8_t* rgb, int32_t width, int32_t height, size_t pitch) {
  cn2_image shape = CN2_IMAGE_INIT;  // the same rules as for pictures
  shape.data = rgb;
  shape.width = width;
  shape.height = height;
  shape.pitch = pitch;
  const cn2::Pixels checked = cn2::check_image(shape, {"rgb"});
  return {rgb, checked.size, checked.pitch};
}

}  // namespace

extern "C" {

const char* cn2_status_name(cn2_status status) {
  switch (status) {
    case CN2_OK:
      return "ok";
    case CN2_INVALID_ARGUMENT:
      return "invalid argument";
    case CN2_MODEL_ERROR:
      return "model error";
    case CN2_UNAVAILABLE:
      return "unavailable";
    case CN2_INFERENCE_ERROR:
      return "inference error";
    case CN2_OUT_OF_MEMORY:
      return "out of memory";
    case CN2_INTERNAL_ERROR:
      return "internal error";
    default:
      return "unknown status";
  }
}

const char* cn2_last_error(void) {
  return cn2::last_error();
}

uint32_t cn2_abi_version(void) {
  return CN2_ABI_VERSION;
}

const char* cn2_version(void) {
  return CN2_VERSION;
}

cn2_status cn2_set_log(cn2_log_callback callback, void* user, int32_t lowest_level) {
  return guard([&] {
    if (lowest_level < CN2_LOG_DEBUG || lowest_level > CN2_LOG_ERROR) {
      cn2::invalid("lowest_level: expected CN2_LOG_DEBUG (0) to CN2_LOG_ERROR (3), got ",
                   lowest_level);
    }
    cn2::set_log(callback, user, lowest_level);
  });
}

cn2_status cn2_model_open(const char* path, const cn2_model_options* options, cn2_model** model) {
  return guard([&] {
    check_pointer(path, "path");
    check_pointer(model, "model");
    auto opened = std::make_unique<cn2_model>();
    opened->shared = cn2::open_model(path, read_options(options));
    *model = opened.release();
  });
}

void cn2_model_close(cn2_model* model) {
  delete model;
}

cn2_status cn2_model_get_info(const cn2_model* model, cn2_model_info* info) {
  return guard([&] {
    check_pointer(model, "model");
    cn2::write_struct(describe(model->shared->manifest), info, {"info"});
  });
}

const char* cn2_model_manifest(const cn2_model* model) {
  return model == nullptr ? nullptr : model->shared->manifest_json.c_str();
}

const char* cn2_model_class_name(const cn2_model* model, int32_t class_id) {
  return has_class(model, class_id)
             ? model->shared->manifest.class_names[static_cast<size_t>(class_id)].c_str()
             : nullptr;
}

int64_t cn2_model_category_id(const cn2_model* model, int32_t class_id) {
  return has_class(model, class_id)
             ? model->shared->manifest.category_ids[static_cast<size_t>(class_id)]
             : -1;
}

const char* cn2_model_runtime(const cn2_model* model) {
  return model == nullptr ? nullptr : model->shared->runtime.c_str();
}

cn2_status cn2_resize(const cn2_image* image, int32_t interpolation, uint8_t* rgb, int32_t width,
                      int32_t height, size_t pitch) {
  return guard([&] {
    const cn2_image defaults = CN2_IMAGE_INIT;
    const cn2::Pixels picture =
        cn2::check_image(cn2::read_struct(image, defaults, {"image"}), {"image"});
    if (picture.memory != CN2_HOST) {
      cn2::invalid("image: expected host memory, got CN2_CUDA");
    }
    if (interpolation != CN2_ANTIALIAS && interpolation != CN2_LINEAR) {
      cn2::invalid("interpolation: expected CN2_ANTIALIAS (0) or CN2_LINEAR (1), got ",
                   interpolation);
    }
    cn2::Resizer().resize(picture, interpolation, read_target(rgb, width, height, pitch));
  });
}

cn2_status cn2_context_create(cn2_model* model, cn2_context** context) {
  return guard([&] {
    check_pointer(model, "model");
    check_pointer(context, "context");
    *context = new cn2_context{cn2::Context(model->shared)};
  });
}

void cn2_context_destroy(cn2_context* context) {
  delete context;
}

cn2_status cn2_detect(cn2_context* context, const cn2_image* images, size_t image_count,
                      const cn2_detect_options* options, cn2_detection* detections, size_t capacity,
                      size_t* counts) {
  return guard([&] {
    check_pointer(context, "context");
    const cn2::CallOptions call = read_call_options(options);
    check_room(image_count, detections, capacity);
    if (image_count > 0) {
      check_pointer(counts, "counts");
    }
    const cn2::ImageList list(images, image_count);
    context->context.detect(list, call, {detections, capacity, counts});
  });
}

cn2_status cn2_context_get_timings(const cn2_context* context, cn2_timings* timings) {
  return guard([&] {
    check_pointer(context, "context");
    const cn2::Timings& measured = context->context.timings();
    const cn2_timings result = {sizeof(cn2_timings),           measured.preprocess_ms,
                                measured.inference_ms,         measured.postprocess_ms,
                                measured.device_preprocess_ms, measured.device_inference_ms};
    cn2::write_struct(result, timings, {"timings"});
  });
}

cn2_status cn2_infer(cn2_context* context, const uint8_t* canvases, int32_t batch, int32_t height,
                     int32_t width, const int32_t* picture_sizes, const cn2_detect_options* options,
                     cn2_raw_detections* raw) {
  return guard([&] {
    check_pointer(context, "context");
    check_pointer(canvases, "canvases");
    check_pointer(picture_sizes, "picture_sizes");
    const cn2_raw_detections defaults = CN2_RAW_DETECTIONS_INIT;
    cn2::read_struct(raw, defaults, {"raw"});  // before the work
    cn2::EngineInput input;
    input.canvases = canvases;
    input.batch = batch;
    input.height = height;
    input.width = width;
    input.picture_sizes = picture_sizes;
    const cn2::EngineOutput output = context->context.infer(input, read_call_options(options));
    const cn2_raw_detections result = {sizeof(cn2_raw_detections),
                                       output.rows,
                                       output.num_detections,
                                       output.boxes,
                                       output.scores,
                                       output.classes};
    cn2::write_struct(result, raw, {"raw"});
  });
}

}  // extern "C"
