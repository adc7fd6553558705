#include "structs.h"

#include <algorithm>
#include <cstdint>

namespace cn2 {
namespace {

#define CN2_END(type, field) (offsetof(type, field) + sizeof(type::field))

constexpr size_t kModelOptions[] = {
    CN2_END(cn2_model_options, struct_size), CN2_END(cn2_model_options, threads),
    CN2_END(cn2_model_options, device), CN2_END(cn2_model_options, runtime_path),
    CN2_END(cn2_model_options, standard_ops)};

constexpr size_t kModelInfo[] = {CN2_END(cn2_model_info, struct_size),
                                 CN2_END(cn2_model_info, class_count),
                                 CN2_END(cn2_model_info, max_detections),
                                 CN2_END(cn2_model_info, proposals),
                                 CN2_END(cn2_model_info, batch),
                                 CN2_END(cn2_model_info, canvas_height),
                                 CN2_END(cn2_model_info, canvas_width),
                                 CN2_END(cn2_model_info, canvas_divisor),
                                 CN2_END(cn2_model_info, short_edge),
                                 CN2_END(cn2_model_info, long_edge),
                                 CN2_END(cn2_model_info, interpolation),
                                 CN2_END(cn2_model_info, score_threshold),
                                 CN2_END(cn2_model_info, lowest_score_threshold)};

constexpr size_t kImage[] = {
    CN2_END(cn2_image, struct_size), CN2_END(cn2_image, format), CN2_END(cn2_image, memory),
    CN2_END(cn2_image, width),       CN2_END(cn2_image, height), CN2_END(cn2_image, data),
    CN2_END(cn2_image, pitch),       CN2_END(cn2_image, chroma), CN2_END(cn2_image, chroma_pitch)};

constexpr size_t kDetectOptions[] = {CN2_END(cn2_detect_options, struct_size),
                                     CN2_END(cn2_detect_options, score_threshold),
                                     CN2_END(cn2_detect_options, cuda_stream)};

constexpr size_t kTimings[] = {
    CN2_END(cn2_timings, struct_size),          CN2_END(cn2_timings, preprocess_ms),
    CN2_END(cn2_timings, inference_ms),         CN2_END(cn2_timings, postprocess_ms),
    CN2_END(cn2_timings, device_preprocess_ms), CN2_END(cn2_timings, device_inference_ms)};

constexpr size_t kRawDetections[] = {
    CN2_END(cn2_raw_detections, struct_size),    CN2_END(cn2_raw_detections, rows),
    CN2_END(cn2_raw_detections, num_detections), CN2_END(cn2_raw_detections, boxes),
    CN2_END(cn2_raw_detections, scores),         CN2_END(cn2_raw_detections, classes)};

#undef CN2_END

uint32_t struct_size(const void* given) {
  uint32_t size = 0;
  std::memcpy(&size, given, sizeof(size));
  return size;
}

bool is_zero(const void* given, size_t begin, size_t end) {
  const char* bytes = static_cast<const char*>(given);
  return std::all_of(bytes + begin, bytes + end, [](char byte) { return byte == 0; });
}

}  // namespace

template <>
std::span<const size_t> field_ends<cn2_model_options>() {
  return kModelOptions;
}
template <>
std::span<const size_t> field_ends<cn2_model_info>() {
  return kModelInfo;
}
template <>
std::span<const size_t> field_ends<cn2_image>() {
  return kImage;
}
template <>
std::span<const size_t> field_ends<cn2_detect_options>() {
  return kDetectOptions;
}
template <>
std::span<const size_t> field_ends<cn2_timings>() {
  return kTimings;
}
template <>
std::span<const size_t> field_ends<cn2_raw_detections>() {
  return kRawDetections;
}

size_t check_struct(const void* given, std::span<const size_t> ends, size_t known, Name what) {
  if (given == nullptr) {
    invalid(what, ": expected a pointer, got null");
  }
  const size_t size = struct_size(given);
  if (size == known || std::find(ends.begin(), ends.end(), size) != ends.end()) {
    return size;
  }
  if (size < known || size > kLargestStruct) {
    invalid(what, ": expected a struct_size of sizeof(the struct), ", known, " here, got ", size);
  }
  if (!is_zero(given, known, size)) {
    invalid(what, ": struct_size is ", size, ", this libcn2 knows the first ", known,
            " bytes, and the rest is not 0; upgrade libcn2");
  }
  return size;
}

ImageList::ImageList(const cn2_image* images, size_t count)
    : images_(reinterpret_cast<const char*>(images)), count_(count) {
  if (count > 0 && images == nullptr) {
    invalid("images: expected ", count, " pictures, got a null pointer");
  }
  if (count > 0) {
    stride_ = struct_size(images);
  }
  if (stride_ > 0 && count > static_cast<size_t>(PTRDIFF_MAX) / stride_) {
    invalid("image_count: expected what memory can hold, got ", count);
  }
}

cn2_image ImageList::at(size_t index) const {
  const Name what = {"images", static_cast<std::ptrdiff_t>(index)};
  const char* given = images_ + index * stride_;
  if (struct_size(given) != stride_) {
    invalid(what, ": expected a struct_size of ", stride_, " as the first picture's, got ",
            struct_size(given));
  }
  const cn2_image defaults = CN2_IMAGE_INIT;
  return read_struct(reinterpret_cast<const cn2_image*>(given), defaults, what);
}

}  // namespace cn2
