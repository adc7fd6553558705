#include "resize_linear.h"

#include <algorithm>
#include <cmath>

#include "linear_rows.h"

namespace cn2 {
namespace {

int16_t to_weight(float share) {
  return static_cast<int16_t>(std::lrint(share * static_cast<float>(kLinearOne)));
}

}  // namespace

void LinearAxis::prepare(int32_t picture_side, int32_t target_side, int32_t repeat,
                         bool clamp_weights) {
  if (from == picture_side && to == target_side) {
    return;
  }
  from = to = 0;  // in case memory runs out
  const auto count = static_cast<size_t>(target_side);
  first.resize(count);
  second.resize(count);
  weights.clear();
  weights.reserve(count * static_cast<size_t>(repeat) * 2);
  const double scale =
      1.0 / (static_cast<double>(target_side) / picture_side);  // OpenCV's rounding
  for (size_t i = 0; i < count; ++i) {
    const auto centre = static_cast<float>((static_cast<double>(i) + 0.5) * scale - 0.5);
    const auto below = static_cast<int32_t>(std::floor(centre));
    const bool outside = below < 0 || below >= picture_side - 1;
    const float share = outside && clamp_weights ? 0.0F : centre - static_cast<float>(below);
    first[i] = std::clamp(below, 0, picture_side - 1);
    second[i] = std::clamp(below + 1, 0, picture_side - 1);
    for (int32_t j = 0; j < repeat; ++j) {
      weights.push_back(to_weight(1.0F - share));
      weights.push_back(to_weight(share));
    }
  }
  from = picture_side;
  to = target_side;
}

void LinearResizer::resize(const Pixels& picture, const Target& target) {
  scratch_[0].resize(static_cast<size_t>(picture.size.width) * 3);
  if (picture.size.height == 2 * target.size.height &&
      picture.size.width == 2 * target.size.width) {
    halve(picture, target);
    return;
  }
  columns_.prepare(picture.size.width, target.size.width, 3, true);
  rows_.prepare(picture.size.height, target.size.height, 1, false);
  for (Row& row : kept_) {
    row.y = -1;
    row.values.resize(target.row_bytes());
  }
  const auto count = static_cast<int32_t>(target.row_bytes());
  for (int32_t y = 0; y < target.size.height; ++y) {
    const auto at = static_cast<size_t>(y);
    const int32_t above = rows_.first[at];
    const int32_t below = rows_.second[at];
    const int16_t* first = resized_row(picture, above, below);
    const int16_t* second = resized_row(picture, below, above);
    linear_blend(first, second, rows_.weights[2 * at], rows_.weights[2 * at + 1], count,
                 target.row(y));
  }
}

// Row y of the picture, resized along x; row `keep` stays where it is.
const int16_t* LinearResizer::resized_row(const Pixels& picture, int32_t y, int32_t keep) {
  for (const Row& row : kept_) {
    if (row.y == y) {
      return row.values.data();
    }
  }
  Row& row = kept_[0].y == keep ? kept_[1] : kept_[0];
  const PixelLayout layout = layout_of(picture.format);
  if (layout.bytes != 0) {
    const uint8_t* pixels = picture.data + static_cast<size_t>(y) * picture.pitch;
    linear_row(pixels, layout, columns_, row.values.data());
  } else {
    linear_row(rgb_row(picture, y, scratch_[0].data()), layout_of(CN2_RGB8), columns_,
               row.values.data());
  }
  row.y = y;
  return row.values.data();
}

void LinearResizer::halve(const Pixels& picture, const Target& target) {
  scratch_[1].resize(static_cast<size_t>(picture.size.width) * 3);
  for (int32_t y = 0; y < target.size.height; ++y) {
    const uint8_t* above = rgb_row(picture, 2 * y, scratch_[0].data());
    const uint8_t* below = rgb_row(picture, 2 * y + 1, scratch_[1].data());
    linear_mean(above, below, target.size.width, target.row(y));
  }
}

}  // namespace cn2
