// The entries of cn2_kernels.h for the CUDA kernels: arrays of the host, copied to the device and back. So what
// tests the CPU's kernels tests these, on a GPU and emulated alike. `threads` means nothing here.
#include "cuda_entries.h"

#include <algorithm>
#include <cstring>

#include "deform_conv_cuda.h"
#include "detection_nms_cuda.h"
#include "device_arrays.h"
#include "preprocess_cuda.h"
#include "proposal_nms_cuda.h"
#include "pyramid_roi_align_cuda.h"
#include "read_pictures.h"

using cn2::testing::DeviceArrays;
using cn2::testing::read_pictures;

namespace {

size_t count(std::initializer_list<int64_t> dimensions) {
  size_t product = 1;
  for (const int64_t dimension : dimensions) {
    product *= static_cast<size_t>(dimension);
  }
  return product;
}

}  // namespace

int32_t cn2_kernels_proposal_nms(const float* boxes, const float* scores, const int32_t* classes,
                                 int64_t batch, int64_t box_count, int64_t proposals,
                                 float iou_threshold, int32_t, float* kept_boxes,
                                 float* kept_scores, int32_t* kept_classes) {
  const cn2::ProposalNmsShape shape{batch, box_count, proposals, iou_threshold};
  if (!cn2::is_possible_on_cuda(shape)) {
    return cudaErrorInvalidValue;
  }
  DeviceArrays arrays;
  const size_t bytes = cn2::proposal_nms_workspace_size(shape);
  auto* device_boxes = arrays.in(boxes, count({batch, box_count, 4}));
  auto* device_scores = arrays.in(scores, count({batch, box_count}));
  auto* device_classes = arrays.in(classes, count({batch, box_count}));
  auto* device_kept_boxes = arrays.out(kept_boxes, count({batch, proposals, 4}));
  auto* device_kept_scores = arrays.out(kept_scores, count({batch, proposals}));
  auto* device_kept_classes = arrays.out(kept_classes, count({batch, proposals}));
  auto* workspace = arrays.workspace(bytes);
  return arrays.run([&](cudaStream_t stream) {
    return cn2::proposal_nms_cuda(device_boxes, device_scores, device_classes, shape,
                                  device_kept_boxes, device_kept_scores, device_kept_classes,
                                  workspace, bytes, stream);
  });
}

int32_t cn2_kernels_detection_nms(const float* boxes, const float* scores, int64_t batch,
                                  int64_t rows, int64_t classes, int32_t shared_boxes,
                                  int64_t detections, float iou_threshold, float score_threshold,
                                  int32_t, int32_t* num_detections, float* found_boxes,
                                  float* found_scores, int32_t* found_classes) {
  const cn2::DetectionNmsShape shape{batch,      rows,          classes,        shared_boxes != 0,
                                     detections, iou_threshold, score_threshold};
  if (!cn2::is_possible_on_cuda(shape)) {
    return cudaErrorInvalidValue;
  }
  DeviceArrays arrays;
  const size_t bytes = cn2::detection_nms_workspace_size(shape);
  auto* device_boxes = arrays.in(boxes, count({batch, rows, shared_boxes != 0 ? 1 : classes, 4}));
  auto* device_scores = arrays.in(scores, count({batch, rows, classes}));
  auto* device_score_threshold = arrays.in(&score_threshold, 1);
  auto* device_num_detections = arrays.out(num_detections, count({batch}));
  auto* device_found_boxes = arrays.out(found_boxes, count({batch, detections, 4}));
  auto* device_found_scores = arrays.out(found_scores, count({batch, detections}));
  auto* device_found_classes = arrays.out(found_classes, count({batch, detections}));
  auto* workspace = arrays.workspace(bytes);
  return arrays.run([&](cudaStream_t stream) {
    return cn2::detection_nms_cuda(device_boxes, device_scores, device_score_threshold, shape,
                                   device_num_detections, device_found_boxes, device_found_scores,
                                   device_found_classes, workspace, bytes, stream);
  });
}

namespace {

// Pool features of `type`, whose elements are `size` bytes.
int pool(const float* rois, const cn2_kernels_level* levels, int64_t level_count,
         const float* level_borders, const cn2::PyramidRoIAlignShape& shape, cn2::FeatureType type,
         void* pooled) {
  std::vector<cn2::CudaPyramidLevel> all;
  for (int64_t i = 0; i < level_count; ++i) {
    all.push_back({levels[i].data, levels[i].height, levels[i].width, levels[i].stride});
  }
  if (!cn2::is_possible_on_cuda(all.data(), all.size(), level_borders, shape)) {
    return cudaErrorInvalidValue;
  }
  DeviceArrays arrays;
  const size_t size = bytes_of(type);
  for (cn2::CudaPyramidLevel& level : all) {
    level.data = arrays.in(static_cast<const char*>(level.data),
                           count({shape.batch, shape.channels, level.height, level.width}) * size);
  }
  const size_t bytes = cn2::pyramid_roi_align_workspace_size(shape);
  const int64_t bins = shape.output_size;
  auto* device_rois = arrays.in(rois, count({shape.batch, shape.rois, 4}));
  auto* device_pooled =
      arrays.out(static_cast<char*>(pooled),
                 count({shape.batch, shape.rois, shape.channels, bins, bins}) * size);
  auto* workspace = arrays.workspace(bytes);
  return arrays.run([&](cudaStream_t stream) {
    return cn2::pyramid_roi_align_cuda(device_rois, all.data(), all.size(), level_borders, shape,
                                       type, device_pooled, workspace, bytes, stream);
  });
}

}  // namespace

int32_t cn2_kernels_pyramid_roi_align(const float* rois, const cn2_kernels_level* levels,
                                      int64_t level_count, const float* level_borders,
                                      int64_t batch, int64_t roi_count, int64_t channels,
                                      int64_t output_size, int64_t sampling_ratio,
                                      float canonical_size, int32_t, float* pooled) {
  return pool(rois, levels, level_count, level_borders,
              {batch, roi_count, channels, output_size, sampling_ratio, canonical_size},
              cn2::FeatureType::kFloat32, pooled);
}

int32_t cn2_cuda_pyramid_roi_align_fp16(const float* rois, const cn2_kernels_level* levels,
                                        int64_t level_count, const float* level_borders,
                                        int64_t batch, int64_t roi_count, int64_t channels,
                                        int64_t output_size, int64_t sampling_ratio,
                                        float canonical_size, uint16_t* pooled) {
  return pool(rois, levels, level_count, level_borders,
              {batch, roi_count, channels, output_size, sampling_ratio, canonical_size},
              cn2::FeatureType::kFloat16, pooled);
}

int64_t cn2_cuda_preprocess_workspace_size(const cn2_cuda_picture* pictures, int64_t count,
                                           int32_t interpolation) {
  const std::vector<cn2::CudaPicture> all = read_pictures(pictures, count);
  return static_cast<int64_t>(cn2::preprocess_workspace_size(
      all.data(), all.size(), static_cast<cn2::Interpolation>(interpolation)));
}

int32_t cn2_cuda_preprocess(const cn2_cuda_picture* pictures, int64_t count_, int32_t interpolation,
                            int32_t canvas_height, int32_t canvas_width, int64_t workspace_more,
                            uint8_t* canvases, int32_t* image_sizes) {
  std::vector<cn2::CudaPicture> all = read_pictures(pictures, count_);
  const auto kind = static_cast<cn2::Interpolation>(interpolation);
  const cn2::CanvasShape canvas{canvas_height, canvas_width};
  if (!cn2::is_possible_on_cuda(all.data(), all.size(), kind, canvas)) {
    return cudaErrorInvalidValue;
  }
  DeviceArrays arrays;
  for (cn2::CudaPicture& picture : all) {
    picture.data = arrays.in(picture.data, count({picture.pitch, picture.height}));
    picture.chroma = arrays.in(picture.chroma, count({picture.chroma_pitch, picture.height / 2}));
  }
  const size_t bytes = cn2::preprocess_workspace_size(all.data(), all.size(), kind) +
                       static_cast<size_t>(workspace_more);
  auto* device_canvases = arrays.out(canvases, count({count_, canvas_height, canvas_width, 3}));
  auto* device_image_sizes = arrays.out(image_sizes, count({count_, 2}));
  auto* workspace = arrays.workspace(bytes);
  return arrays.run([&](cudaStream_t stream) {
    return cn2::preprocess_cuda(all.data(), all.size(), kind, canvas, device_canvases,
                                device_image_sizes, workspace, bytes, stream);
  });
}

int32_t cn2_cuda_deform_conv(const void* x, const void* weight, const void* offset,
                             const void* bias, const void* mask, const int64_t* sizes, int32_t half,
                             int64_t workspace_more, void* y) {
  cn2::DeformConvShape shape{};
  static_assert(sizeof shape == 17 * sizeof(int64_t));
  std::memcpy(&shape, sizes, sizeof shape);
  if (!cn2::is_possible_on_cuda(shape)) {
    return cudaErrorInvalidValue;
  }
  const auto type = half != 0 ? cn2::FeatureType::kFloat16 : cn2::FeatureType::kFloat32;
  const int64_t height = shape.out_height();
  const int64_t width = shape.out_width();
  const int64_t taps = shape.kernel_height * shape.kernel_width;
  DeviceArrays arrays;
  const auto in = [&](const void* host, std::initializer_list<int64_t> dimensions) {
    return arrays.in(static_cast<const char*>(host), count(dimensions) * bytes_of(type));
  };
  const cn2::DeformConvTensors tensors{
      in(x, {shape.batch, shape.channels, shape.height, shape.width}),
      in(weight, {shape.outputs, shape.channels / shape.groups, taps}),
      in(offset, {shape.batch, shape.offset_groups, taps, 2, height, width}),
      in(bias, {shape.outputs}),
      in(mask, {shape.batch, shape.offset_groups, taps, height, width}),
      arrays.out(static_cast<char*>(y),
                 count({shape.batch, shape.outputs, height, width}) * bytes_of(type))};
  const size_t bytes = cn2::deform_conv_workspace_size(shape) + static_cast<size_t>(workspace_more);
  auto* workspace = arrays.workspace(bytes);
  return arrays.run([&](cudaStream_t stream) {
    return cn2::deform_conv_cuda(tensors, shape, type, workspace, bytes, stream);
  });
}

void cn2_cuda_set_repeats(int32_t repeats) {
  cn2::testing::timing().repeats = repeats;
}

int64_t cn2_cuda_get_times(float* microseconds, int64_t capacity) {
  const std::vector<float>& times = cn2::testing::timing().microseconds;
  const auto count = std::min<int64_t>(static_cast<int64_t>(times.size()), capacity);
  std::copy_n(times.begin(), count, microseconds);
  return static_cast<int64_t>(times.size());
}
