#include "axis_taps.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace cn2 {
namespace {

// With more samples per bin, those inside the feature map are less than a millionth of them: zero.
constexpr float kMostSamples = 1 << 30;
// Up to here, cells, positions are rounded as in torchvision; float32 is too coarse for boxes beyond.
constexpr float kMostFloat = 1 << 20;

struct Samples {
  int64_t first, last;  // those that may be inside: [first, last)
};

void add_tap(std::vector<Tap>& taps, int64_t bin, int64_t cell, float weight) {
  const size_t known =
      std::min<size_t>(taps.size(), 2);  // samples ascend: it is one of the last two
  for (auto tap = taps.end() - static_cast<ptrdiff_t>(known); tap != taps.end(); ++tap) {
    if (tap->bin == bin && tap->cell == cell) {
      tap->weight += weight;
      return;
    }
  }
  taps.push_back({bin, cell, weight});
}

// One sample: between two cells; on the border's value up to a cell outside; nothing beyond.
template <typename Position>
void add_sample(std::vector<Tap>& taps, int64_t bin, Position position, int64_t cells,
                float weight) {
  if (!(position >= -1 && position <= static_cast<Position>(cells))) {
    return;
  }
  position = std::max<Position>(position, 0);
  const auto low = static_cast<int64_t>(position);
  if (low >= cells - 1) {
    add_tap(taps, bin, cells - 1, weight);
    return;
  }
  const auto high_part = static_cast<float>(position - static_cast<Position>(low));
  add_tap(taps, bin, low, weight * (1 - high_part));
  add_tap(taps, bin, low + 1, weight * high_part);
}

Samples find_inside(double bin_start, double step, double samples, int64_t cells) {
  constexpr double kSlack = 2;  // more than what rounding may move a position
  const double first = std::floor((-1 - bin_start) / step) - kSlack;
  const double last = std::ceil((static_cast<double>(cells) - bin_start) / step) + kSlack;
  return {static_cast<int64_t>(std::clamp(first, 0.0, samples)),
          static_cast<int64_t>(std::clamp(last, 0.0, samples))};
}

template <typename Position>
void add_bins(const Axis& axis, float samples, std::vector<Tap>& taps) {
  const auto start = static_cast<Position>(axis.start);
  const auto count = static_cast<Position>(samples);
  const Position bin_size =
      (static_cast<Position>(axis.end) - start) / static_cast<Position>(axis.bins);
  for (int64_t bin = 0; bin < axis.bins; ++bin) {
    const Position bin_start = start + static_cast<Position>(bin) * bin_size;
    Samples inside{0, static_cast<int64_t>(samples)};
    if (axis.sampling_ratio == 0) {
      inside = find_inside(bin_start, static_cast<double>(bin_size) / samples, samples, axis.cells);
    }
    for (int64_t i = inside.first; i < inside.last; ++i) {
      const Position along = (static_cast<Position>(i) + Position{0.5}) * bin_size / count;
      add_sample(taps, bin, bin_start + along, axis.cells, 1 / samples);
    }
  }
}

}  // namespace

void find_taps(const Axis& axis, std::vector<Tap>& taps) {
  taps.clear();
  const float bin_size = (axis.end - axis.start) / static_cast<float>(axis.bins);
  const bool adaptive = axis.sampling_ratio == 0;
  const float samples = adaptive ? std::ceil(bin_size) : static_cast<float>(axis.sampling_ratio);
  if (axis.cells == 0 || !(samples >= 1 && samples <= kMostSamples)) {
    return;
  }
  if (std::max(std::abs(axis.start), std::abs(axis.end)) <= kMostFloat) {
    add_bins<float>(axis, samples, taps);
  } else {
    add_bins<double>(axis, samples, taps);
  }
}

}  // namespace cn2
