// Pillow's BILINEAR on bytes, bit for bit: a triangle filter that widens when shrinking, in 22
// fractional bits, along x and along y, rounded to bytes in between.
#pragma once

#include <cstdint>
#include <vector>

#include "pixels.h"
#include "target.h"

namespace cn2 {

// Which pixels each pixel of the result takes of a row, or each row of a column, and their weights.
struct AntialiasAxis {
  struct Span {
    int32_t first, count;
  };

  int32_t from = 0;  // pixels of the picture
  int32_t to = 0;    // of the result
  int32_t taps = 0;  // weights of each pixel, those past its count 0
  std::vector<Span> spans;
  std::vector<int32_t> weights;  // to * taps

  // Does nothing where the sizes are those of before.
  void prepare(int32_t picture_side, int32_t target_side);

  const int32_t* weights_of(int32_t pixel) const {
    return weights.data() + static_cast<ptrdiff_t>(pixel) * taps;
  }

 private:
  void fill(int32_t pixel, double scale, double widening);
  std::vector<double> exact_;
};

class AntialiasResizer {
 public:
  void resize(const Pixels& picture, const Target& target);

 private:
  void keep_row(const Pixels& picture, int32_t y);
  uint8_t* kept_row(int32_t y);
  void blend(int32_t y, uint8_t* bytes);

  AntialiasAxis columns_, rows_;
  bool rows_first_ = false;       // along y before along x
  size_t row_bytes_ = 0;          // of a kept row
  int32_t kept_rows_ = 1;         // at most as many as one row of the result takes
  std::vector<uint8_t> scratch_;  // a row of the picture
  std::vector<uint8_t> kept_;     // the last rows; resized along x unless y is first
  std::vector<int32_t> sums_;     // of one row of the result
};

}  // namespace cn2
