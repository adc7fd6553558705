// RoIAlign of each box on the pyramid level that fits its size, on the GPU (docs/operators.md).
#pragma once

#include <cuda_runtime_api.h>

#include "feature_type.h"
#include "pyramid_roi_align.h"

namespace cn2 {

inline constexpr size_t kMostCudaLevels = 16;

struct CudaPyramidLevel {
  const void* data;  // [batch, channels, height, width] in device memory
  int64_t height;    // cells
  int64_t width;
  int64_t stride;  // pixels per cell
};

// As pyramid_roi_align; `levels` and `level_borders` are in host memory and read before it returns, all else
// in device memory. At most kMostCudaLevels levels.
//   workspace   pyramid_roi_align_workspace_size(shape) bytes.
cudaError_t pyramid_roi_align_cuda(const float* rois, const CudaPyramidLevel* levels,
                                   size_t level_count, const float* level_borders,
                                   const PyramidRoIAlignShape& shape, FeatureType type,
                                   void* pooled, void* workspace, size_t workspace_size,
                                   cudaStream_t stream) noexcept;

// Bytes; 0 for a shape that no call can have.
size_t pyramid_roi_align_workspace_size(const PyramidRoIAlignShape& shape) noexcept;

// Whether a call can have these sizes and attributes.
bool is_possible_on_cuda(const CudaPyramidLevel* levels, size_t level_count,
                         const float* level_borders, const PyramidRoIAlignShape& shape) noexcept;

}  // namespace cn2
