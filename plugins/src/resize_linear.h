// OpenCV's INTER_LINEAR on bytes, bit for bit: four pixels weighted in 11 fractional bits, no
// antialiasing; exactly half the size is the mean of 2 x 2 pixels.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "pixels.h"
#include "target.h"

namespace cn2 {

constexpr int32_t kLinearOne = 1 << 11;  // a weight of 1

// What each pixel of the result takes of a row, or each row of a column: two pixels and their
// weights.
struct LinearAxis {
  int32_t from = 0;  // pixels of the picture
  int32_t to = 0;    // of the result
  std::vector<int32_t> first, second;
  std::vector<int16_t> weights;  // to * repeat pairs

  // Does nothing where the sizes are those of before. `repeat`: how often each pair stands, one for
  // each colour. `clamp_weights`: at the edge all weight goes to the edge's pixel, as OpenCV does
  // along a row; along a column it takes that pixel twice, which rounds differently.
  void prepare(int32_t picture_side, int32_t target_side, int32_t repeat, bool clamp_weights);
};

class LinearResizer {
 public:
  void resize(const Pixels& picture, const Target& target);

 private:
  // A row of the picture, resized along x, 4 fractional bits short of the weights'.
  struct Row {
    int32_t y = -1;
    std::vector<int16_t> values;
  };

  void halve(const Pixels& picture, const Target& target);
  const int16_t* resized_row(const Pixels& picture, int32_t y, int32_t keep);

  LinearAxis columns_, rows_;
  std::array<Row, 2> kept_;
  std::array<std::vector<uint8_t>, 2> scratch_;
};

}  // namespace cn2
