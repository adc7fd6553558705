// RoIAlign of each box on the pyramid level that fits its size (docs/operators.md).
#pragma once

#include "kernels.h"

namespace cn2 {

struct PyramidLevel {
  const float* data;  // [batch, channels, height, width]
  int64_t height;     // cells
  int64_t width;
  int64_t stride;  // pixels per cell
};

struct PyramidRoIAlignShape {
  int64_t batch;
  int64_t rois;  // of each picture
  int64_t channels;
  int64_t output_size;     // P, cells per side of the result
  int64_t sampling_ratio;  // samples per cell and side; 0: adaptive
  float canonical_size;    // pixels
};

// rois [batch, rois, 4]; levels fine to coarse; level_borders [level_count - 1], ascending;
// pooled [batch, rois, channels, P, P].
Status pyramid_roi_align(const float* rois, const PyramidLevel* levels, size_t level_count,
                         const float* level_borders, const PyramidRoIAlignShape& shape,
                         const ThreadPool& threads, float* pooled) noexcept;

}  // namespace cn2
