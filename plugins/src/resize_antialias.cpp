#include "resize_antialias.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "antialias_rows.h"

namespace cn2 {
namespace {

int32_t to_weight(double share) {
  const double scaled = share * (1 << kAntialiasBits);
  return static_cast<int32_t>(share < 0 ? scaled - 0.5 : scaled + 0.5);
}

double triangle(double distance) {
  return std::max(0.0, 1.0 - std::abs(distance));
}

}  // namespace

void AntialiasAxis::prepare(int32_t picture_side, int32_t target_side) {
  if (from == picture_side && to == target_side) {
    return;
  }
  from = to = 0;  // in case memory runs out
  const double scale = static_cast<double>(picture_side) / target_side;
  const double widening = std::max(1.0, scale);
  taps = static_cast<int32_t>(std::ceil(widening)) * 2 + 1;
  const auto count = static_cast<size_t>(target_side);
  spans.resize(count);
  weights.assign(count * static_cast<size_t>(taps), 0);
  exact_.resize(static_cast<size_t>(taps));
  from = picture_side;
  to = target_side;
  for (int32_t pixel = 0; pixel < target_side; ++pixel) {
    fill(pixel, scale, widening);
  }
}

// The order of the operations is Pillow's.
void AntialiasAxis::fill(int32_t pixel, double scale, double widening) {
  const double centre = (pixel + 0.5) * scale;
  const double narrowing = 1.0 / widening;
  const int32_t first = std::max(0, static_cast<int32_t>(centre - widening + 0.5));
  const int32_t end = std::min(from, static_cast<int32_t>(centre + widening + 0.5));
  double sum = 0;
  for (int32_t i = 0; i < end - first; ++i) {
    const double share = triangle((i + first - centre + 0.5) * narrowing);
    exact_[static_cast<size_t>(i)] = share;
    sum += share;
  }
  const auto begin = static_cast<size_t>(pixel) * static_cast<size_t>(taps);
  for (size_t i = 0; i < static_cast<size_t>(end - first); ++i) {
    weights[begin + i] = to_weight(sum != 0 ? exact_[i] / sum : exact_[i]);
  }
  spans[static_cast<size_t>(pixel)] = {first, end - first};
}

void AntialiasResizer::resize(const Pixels& picture, const Target& target) {
  columns_.prepare(picture.size.width, target.size.width);
  rows_.prepare(picture.size.height, target.size.height);
  row_bytes_ = target.row_bytes();
  scratch_.resize(static_cast<size_t>(picture.size.width) * 3);
  kept_.resize(static_cast<size_t>(rows_.taps) * row_bytes_);
  sums_.resize(row_bytes_);
  int32_t next = 0;  // row of the picture
  for (int32_t y = 0; y < target.size.height; ++y) {
    const auto [first, count] = rows_.spans[static_cast<size_t>(y)];
    for (next = std::max(next, first); next < first + count; ++next) {
      keep_row(picture, next, row_bytes_);
    }
    blend(y, target);
  }
}

const uint8_t* AntialiasResizer::kept_row(int32_t y) const {
  return kept_.data() + static_cast<size_t>(y % rows_.taps) * row_bytes_;
}

void AntialiasResizer::keep_row(const Pixels& picture, int32_t y, size_t row_bytes) {
  const uint8_t* row = rgb_row(picture, y, scratch_.data());
  uint8_t* resized = kept_.data() + static_cast<size_t>(y % rows_.taps) * row_bytes;
  if (columns_.from == columns_.to) {
    std::memcpy(resized, row, row_bytes);
  } else {
    antialias_row(row, columns_, resized);
  }
}

void AntialiasResizer::blend(int32_t y, const Target& target) {
  const auto [first, count] = rows_.spans[static_cast<size_t>(y)];
  if (rows_.from == rows_.to) {
    std::memcpy(target.row(y), kept_row(y), row_bytes_);
    return;
  }
  const auto bytes = static_cast<int32_t>(row_bytes_);
  std::fill(sums_.begin(), sums_.end(), kAntialiasHalf);
  const int32_t* weights = rows_.weights_of(y);
  for (int32_t i = 0; i < count; ++i) {
    antialias_add(kept_row(first + i), weights[i], bytes, sums_.data());
  }
  antialias_round(sums_.data(), bytes, target.row(y));
}

}  // namespace cn2
