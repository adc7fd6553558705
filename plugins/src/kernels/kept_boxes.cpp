#include "kept_boxes.h"

#include <algorithm>
#include <limits>

#include "tasks.h"

namespace cn2 {
namespace {

constexpr size_t kBlock = 32;  // boxes that are compared together

struct Box {
  float x0, y0, x1, y1, area;
  int32_t label;
};

struct Columns {
  const float *x0, *y0, *x1, *y1, *areas;
  const int32_t* labels;
};

// A box without area, or with a NaN, becomes one that overlaps nothing: as if it began behind all others
// and ended before them.
Box prepare(const float* box, int32_t label) {
  const float width = box[2] - box[0];
  const float height = box[3] - box[1];
  if (width > 0 && height > 0) {
    return {box[0], box[1], box[2], box[3], width * height, label};
  }
  constexpr float kFar = std::numeric_limits<float>::max();
  return {kFar, kFar, -kFar, -kFar, 0, label};
}

CN2_FOR_EACH_PROCESSOR bool overlap_any(const Columns& kept, size_t count, const Box& box,
                                        float threshold) {
  for (size_t begin = 0; begin < count; begin += kBlock) {
    int same[kBlock];
    int any = 0;
    for (size_t i = 0; i < kBlock; ++i) {
      same[i] = kept.labels[begin + i] == box.label;
      any |= same[i];
    }
    if (any == 0) {
      continue;
    }
    int above = 0;
    for (size_t i = 0; i < kBlock; ++i) {
      const size_t k = begin + i;
      const float width = std::min(kept.x1[k], box.x1) - std::max(kept.x0[k], box.x0);
      const float height = std::min(kept.y1[k], box.y1) - std::max(kept.y0[k], box.y0);
      const float overlap = std::max(width, 0.0f) * std::max(height, 0.0f);
      const float iou = overlap / (kept.areas[k] + box.area - overlap);
      above |= same[i] & static_cast<int>(iou > threshold);
    }
    if (above != 0) {
      return true;
    }
  }
  return false;
}

}  // namespace

bool KeptBoxes::suppress(const float* box, int32_t label) const {
  const Columns kept{x0_.data(), y0_.data(), x1_.data(), y1_.data(), areas_.data(), labels_.data()};
  return overlap_any(kept, count_, prepare(box, label), iou_threshold_);
}

void KeptBoxes::add(const float* box, int32_t label) {
  if (count_ % kBlock == 0) {  // the rest of a block overlaps nothing
    const float nowhere[4] = {};
    const Box filler = prepare(nowhere, 0);
    const size_t size = count_ + kBlock;
    x0_.resize(size, filler.x0);
    y0_.resize(size, filler.y0);
    x1_.resize(size, filler.x1);
    y1_.resize(size, filler.y1);
    areas_.resize(size, filler.area);
    labels_.resize(size, filler.label);
  }
  const Box kept = prepare(box, label);
  x0_[count_] = kept.x0;
  y0_[count_] = kept.y0;
  x1_[count_] = kept.x1;
  y1_[count_] = kept.y1;
  areas_[count_] = kept.area;
  labels_[count_] = kept.label;
  ++count_;
}

}  // namespace cn2
