#include "device_entries.h"

#include <cstring>
#include <vector>

#include "deform_conv_cuda.h"
#include "detection_nms_cuda.h"
#include "proposal_nms_cuda.h"
#include "pyramid_roi_align_cuda.h"
#include "read_pictures.h"

using cn2::testing::read_pictures;

namespace {

cn2::PyramidRoIAlignShape roi_align_shape(const int64_t* sizes, float canonical_size) {
  return {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], canonical_size};
}

cn2::ProposalNmsShape proposal_shape(const int64_t* sizes, float iou_threshold) {
  return {sizes[0], sizes[1], sizes[2], iou_threshold};
}

cn2::DetectionNmsShape detection_shape(const int64_t* sizes, float iou_threshold) {
  return {sizes[0], sizes[1], sizes[2], sizes[3] != 0, sizes[4], iou_threshold, 0.0f};
}

cn2::DeformConvShape deform_shape(const int64_t* sizes) {
  cn2::DeformConvShape shape{};
  std::memcpy(&shape, sizes, sizeof shape);
  return shape;
}

cn2::FeatureType type_of(int32_t half) {
  return half != 0 ? cn2::FeatureType::kFloat16 : cn2::FeatureType::kFloat32;
}

}  // namespace

int32_t cn2_cuda_launch_pyramid_roi_align(const float* rois, const cn2_kernels_level* levels,
                                          int64_t level_count, const float* borders,
                                          const int64_t* sizes, float canonical_size, int32_t half,
                                          void* pooled, void* workspace, int64_t workspace_size,
                                          void* stream) {
  std::vector<cn2::CudaPyramidLevel> all;
  for (int64_t i = 0; i < level_count; ++i) {
    all.push_back({levels[i].data, levels[i].height, levels[i].width, levels[i].stride});
  }
  return cn2::pyramid_roi_align_cuda(
      rois, all.data(), all.size(), borders, roi_align_shape(sizes, canonical_size), type_of(half),
      pooled, workspace, static_cast<size_t>(workspace_size), static_cast<cudaStream_t>(stream));
}

int64_t cn2_cuda_workspace_pyramid_roi_align(const int64_t* sizes, float canonical_size) {
  return static_cast<int64_t>(
      cn2::pyramid_roi_align_workspace_size(roi_align_shape(sizes, canonical_size)));
}

int32_t cn2_cuda_launch_proposal_nms(const float* boxes, const float* scores,
                                     const int32_t* classes, const int64_t* sizes,
                                     float iou_threshold, float* kept_boxes, float* kept_scores,
                                     int32_t* kept_classes, void* workspace, int64_t workspace_size,
                                     void* stream) {
  return cn2::proposal_nms_cuda(boxes, scores, classes, proposal_shape(sizes, iou_threshold),
                                kept_boxes, kept_scores, kept_classes, workspace,
                                static_cast<size_t>(workspace_size),
                                static_cast<cudaStream_t>(stream));
}

int64_t cn2_cuda_workspace_proposal_nms(const int64_t* sizes, float iou_threshold) {
  return static_cast<int64_t>(
      cn2::proposal_nms_workspace_size(proposal_shape(sizes, iou_threshold)));
}

int32_t cn2_cuda_launch_detection_nms(const float* boxes, const float* scores,
                                      const float* score_threshold, const int64_t* sizes,
                                      float iou_threshold, int32_t* num_detections,
                                      float* found_boxes, float* found_scores,
                                      int32_t* found_classes, void* workspace,
                                      int64_t workspace_size, void* stream) {
  return cn2::detection_nms_cuda(
      boxes, scores, score_threshold, detection_shape(sizes, iou_threshold), num_detections,
      found_boxes, found_scores, found_classes, workspace, static_cast<size_t>(workspace_size),
      static_cast<cudaStream_t>(stream));
}

int64_t cn2_cuda_workspace_detection_nms(const int64_t* sizes, float iou_threshold) {
  return static_cast<int64_t>(
      cn2::detection_nms_workspace_size(detection_shape(sizes, iou_threshold)));
}

int32_t cn2_cuda_launch_deform_conv(const void* x, const void* weight, const void* offset,
                                    const void* bias, const void* mask, const int64_t* sizes,
                                    int32_t half, void* y, void* workspace, int64_t workspace_size,
                                    void* stream) {
  return cn2::deform_conv_cuda({x, weight, offset, bias, mask, y}, deform_shape(sizes),
                               type_of(half), workspace, static_cast<size_t>(workspace_size),
                               static_cast<cudaStream_t>(stream));
}

int64_t cn2_cuda_workspace_deform_conv(const int64_t* sizes) {
  return static_cast<int64_t>(cn2::deform_conv_workspace_size(deform_shape(sizes)));
}

int32_t cn2_cuda_launch_preprocess(const cn2_cuda_picture* pictures, int64_t count,
                                   const int64_t* sizes, uint8_t* canvases, int32_t* image_sizes,
                                   void* workspace, int64_t workspace_size, void* stream) {
  const std::vector<cn2::CudaPicture> all = read_pictures(pictures, count);
  const cn2::CanvasShape canvas{static_cast<int32_t>(sizes[1]), static_cast<int32_t>(sizes[2])};
  return cn2::preprocess_cuda(all.data(), all.size(), static_cast<cn2::Interpolation>(sizes[0]),
                              canvas, canvases, image_sizes, workspace,
                              static_cast<size_t>(workspace_size),
                              static_cast<cudaStream_t>(stream));
}

int64_t cn2_cuda_workspace_preprocess(const cn2_cuda_picture* pictures, int64_t count,
                                      const int64_t* sizes) {
  const std::vector<cn2::CudaPicture> all = read_pictures(pictures, count);
  return static_cast<int64_t>(cn2::preprocess_workspace_size(
      all.data(), all.size(), static_cast<cn2::Interpolation>(sizes[0])));
}
