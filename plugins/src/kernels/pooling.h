// RoIAlign of one box from its taps: along y first, as rows are contiguous, then along x.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "axis_taps.h"

namespace cn2 {

// Rows and columns of the result are computed in blocks of so many.
inline constexpr size_t kLanes = 8;

// What pools one box; the same for all channels. A box without samples has no columns.
struct RoiPlan {
  size_t level;
  size_t first_column, columns;  // the window on the feature map
  size_t taps_per_bin;           // of rows; bins that need fewer have some of weight 0
  size_t taps;                   // where in Plans its numbers begin
  size_t column_weights;
};

// The plans of some boxes.
struct Plans {
  struct RowTap {
    size_t offset;  // of the row, floats from the plane's start
    float weight;
  };
  std::vector<RoiPlan> rois;
  std::vector<RowTap> taps;           // [output_size, taps_per_bin] each
  std::vector<float> column_weights;  // [columns, output_size rounded up to kLanes] each
};

// Append the plan of a box.
void add_plan(size_t level, const Axis& y, const Axis& x, std::vector<Tap>& scratch, Plans& plans);

// Some channels of one picture on one level.
struct Channels {
  const float* first;  // the first channel's plane
  size_t plane_size;   // floats
  size_t count;
};

// Pool one box: pooled [count, output_size, output_size].
//   scratch   scratch_size(output_size, width) floats of any finite value.
void pool_channels(const Plans& plans, const RoiPlan& roi, const Channels& channels,
                   size_t output_size, float* scratch, float* pooled);

size_t scratch_size(size_t output_size, size_t width);

}  // namespace cn2
