// Greedy suppression within each class, then the best of all classes, on the GPU (docs/operators.md).
#pragma once

#include <cuda_runtime_api.h>

#include "detection_nms.h"

namespace cn2 {

// As detection_nms, with all pointers to device memory.
//   score_threshold   one number in device memory; the shape's is not looked at.
//   workspace         detection_nms_workspace_size(shape) bytes.
cudaError_t detection_nms_cuda(const float* boxes, const float* scores,
                               const float* score_threshold, const DetectionNmsShape& shape,
                               int32_t* num_detections, float* found_boxes, float* found_scores,
                               int32_t* found_classes, void* workspace, size_t workspace_size,
                               cudaStream_t stream) noexcept;

// Bytes; 0 for a shape that no call can have.
size_t detection_nms_workspace_size(const DetectionNmsShape& shape) noexcept;

// Whether a call can have these sizes and attributes.
bool is_possible_on_cuda(const DetectionNmsShape& shape) noexcept;

}  // namespace cn2
