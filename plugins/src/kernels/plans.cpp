#include <algorithm>

#include "pooling.h"

namespace cn2 {
namespace {

// The rows of each bin, all bins with as many: a loop of one length is predicted well.
void add_rows(const std::vector<Tap>& taps, const Axis& y, size_t width, RoiPlan& roi,
              Plans& plans) {
  std::vector<size_t> counts(static_cast<size_t>(y.bins), 0);
  for (const Tap& tap : taps) {
    ++counts[static_cast<size_t>(tap.bin)];
  }
  roi.taps_per_bin = *std::max_element(counts.begin(), counts.end());
  const size_t row = static_cast<size_t>(taps.front().cell) * width;
  plans.taps.resize(roi.taps + counts.size() * roi.taps_per_bin, {row, 0.0f});
  for (const Tap& tap : taps) {
    const auto bin = static_cast<size_t>(tap.bin);
    const size_t place = bin * roi.taps_per_bin + --counts[bin];
    plans.taps[roi.taps + place] = {static_cast<size_t>(tap.cell) * width, tap.weight};
  }
}

// The columns that any tap reads, at least kLanes where the feature map has so many.
void find_window(const std::vector<Tap>& taps, size_t width, RoiPlan& roi) {
  const auto by_cell = [](const Tap& a, const Tap& b) { return a.cell < b.cell; };
  const auto [low, high] = std::minmax_element(taps.begin(), taps.end(), by_cell);
  const auto first = static_cast<size_t>(low->cell);
  const size_t needed = static_cast<size_t>(high->cell) - first + 1;
  roi.columns = std::min(std::max(needed, kLanes), width);
  roi.first_column = std::min(first, width - roi.columns);
}

}  // namespace

void add_plan(size_t level, const Axis& y, const Axis& x, std::vector<Tap>& scratch, Plans& plans) {
  RoiPlan roi{level, 0, 0, 0, plans.taps.size(), plans.column_weights.size()};
  find_taps(x, scratch);
  if (!scratch.empty()) {
    find_window(scratch, static_cast<size_t>(x.cells), roi);
    const size_t lanes = (static_cast<size_t>(x.bins) + kLanes - 1) / kLanes * kLanes;
    plans.column_weights.resize(roi.column_weights + roi.columns * lanes);
    float* weights = plans.column_weights.data() + roi.column_weights;
    for (const Tap& tap : scratch) {
      const size_t column = static_cast<size_t>(tap.cell) - roi.first_column;
      weights[column * lanes + static_cast<size_t>(tap.bin)] += tap.weight;
    }
    find_taps(y, scratch);
    if (scratch.empty()) {
      roi.columns = 0;
    } else {
      add_rows(scratch, y, static_cast<size_t>(x.cells), roi, plans);
    }
  }
  plans.rois.push_back(roi);
}

}  // namespace cn2
