// The boxes that have survived so far, and whether one of them suppresses another box.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cn2 {

// Boxes are x0, y0, x1, y1. The IoU is that of docs/operators.md, each step rounded to float32.
class KeptBoxes {
 public:
  explicit KeptBoxes(float iou_threshold) : iou_threshold_(iou_threshold) {}

  // Whether the IoU with a kept box of the same class is above the threshold.
  bool suppress(const float* box, int32_t label) const;

  void add(const float* box, int32_t label);

 private:
  float iou_threshold_;
  size_t count_ = 0;
  // A structure of arrays, in whole blocks.
  std::vector<float> x0_, y0_, x1_, y1_, areas_;
  std::vector<int32_t> labels_;
};

}  // namespace cn2
