// RoIAlign along one axis. The average over a bin's samples, each between four cells, is a product of
// sums over rows and over columns, as a sample counts only if both of its coordinates are inside.
#pragma once

#include <cstdint>
#include <vector>

namespace cn2 {

// A cell that a bin averages, and with what weight.
struct Tap {
  int64_t bin;
  int64_t cell;
  float weight;
};

// One axis of a box on a feature map.
struct Axis {
  float start, end;        // of the box, in cells, half a cell shifted
  int64_t cells;           // of the feature map
  int64_t bins;            // of the result
  int64_t sampling_ratio;  // samples per bin; 0: ceil(side / bins)
};

// The taps of all bins, in order of bins; none where there are no samples. A cell may occur twice in a
// bin. The work is bounded by the feature map's and the result's size, however large the box.
void find_taps(const Axis& axis, std::vector<Tap>& taps);

}  // namespace cn2
