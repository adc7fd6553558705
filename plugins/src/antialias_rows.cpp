#include "antialias_rows.h"

#include <algorithm>

#include "clones.h"
#include "resize_antialias.h"

namespace cn2 {
namespace {

uint8_t to_byte(int32_t sum) {
  return static_cast<uint8_t>(std::clamp(sum >> kAntialiasBits, 0, 255));
}

}  // namespace

void antialias_row(const uint8_t* rgb, const AntialiasAxis& columns, uint8_t* resized) {
  for (int32_t x = 0; x < columns.to; ++x, resized += 3) {
    const auto [first, count] = columns.spans[static_cast<size_t>(x)];
    const uint8_t* pixel = rgb + static_cast<ptrdiff_t>(first) * 3;
    const int32_t* weights = columns.weights_of(x);
    int32_t red = kAntialiasHalf;
    int32_t green = kAntialiasHalf;
    int32_t blue = kAntialiasHalf;
    for (int32_t i = 0; i < count; ++i, pixel += 3) {
      red += pixel[0] * weights[i];
      green += pixel[1] * weights[i];
      blue += pixel[2] * weights[i];
    }
    resized[0] = to_byte(red);
    resized[1] = to_byte(green);
    resized[2] = to_byte(blue);
  }
}

CN2_CLONES void antialias_add(const uint8_t* row, int32_t weight, int32_t count, int32_t* sums) {
  for (int32_t i = 0; i < count; ++i) {
    sums[i] += row[i] * weight;
  }
}

CN2_CLONES void antialias_round(const int32_t* sums, int32_t count, uint8_t* bytes) {
  for (int32_t i = 0; i < count; ++i) {
    bytes[i] = to_byte(sums[i]);
  }
}

}  // namespace cn2
