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

// Pillow 13 begins along y where that takes away more than twice as many rows as columns.
bool starts_with_rows(Size picture, Size target) {
  const int32_t fewer_rows = picture.height - target.height;
  return fewer_rows > 0 && 2 * (picture.width - target.width) < fewer_rows;
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
  rows_first_ = starts_with_rows(picture.size, target.size);
  scratch_.resize(static_cast<size_t>(picture.size.width) * 3);
  row_bytes_ = rows_first_ ? scratch_.size() : target.row_bytes();
  kept_rows_ = std::min(rows_.taps, picture.size.height);
  kept_.resize(static_cast<size_t>(kept_rows_) * row_bytes_);
  sums_.resize(row_bytes_);
  int32_t next = 0;  // row of the picture
  for (int32_t y = 0; y < target.size.height; ++y) {
    const auto [first, count] = rows_.spans[static_cast<size_t>(y)];
    for (next = std::max(next, first); next < first + count; ++next) {
      keep_row(picture, next);
    }
    if (rows_first_ && columns_.from != columns_.to) {
      blend(y, scratch_.data());
      antialias_row(scratch_.data(), columns_, target.row(y));
    } else {
      blend(y, target.row(y));
    }
  }
}

void AntialiasResizer::keep_row(const Pixels& picture, int32_t y) {
  if (rows_first_ || columns_.from == columns_.to) {
    read_rgb_row(picture, y, kept_row(y));
  } else {
    antialias_row(rgb_row(picture, y, scratch_.data()), columns_, kept_row(y));
  }
}

uint8_t* AntialiasResizer::kept_row(int32_t y) {
  return kept_.data() + static_cast<size_t>(y % kept_rows_) * row_bytes_;
}

void AntialiasResizer::blend(int32_t y, uint8_t* bytes) {
  if (rows_.from == rows_.to) {
    std::memcpy(bytes, kept_row(y), row_bytes_);
    return;
  }
  const auto [first, count] = rows_.spans[static_cast<size_t>(y)];
  const auto length = static_cast<int32_t>(row_bytes_);
  std::fill(sums_.begin(), sums_.end(), kAntialiasHalf);
  for (int32_t i = 0; i < count; ++i) {
    antialias_add(kept_row(first + i), rows_.weights_of(y)[i], length, sums_.data());
  }
  antialias_round(sums_.data(), length, bytes);
}

}  // namespace cn2
