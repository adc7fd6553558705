// Greedy suppression within each class, then the best of all classes (docs/operators.md).
#pragma once

#include "kernels.h"

namespace cn2 {

struct DetectionNmsShape {
  int64_t batch;
  int64_t rows;        // K, boxes of each picture
  int64_t classes;     // C
  bool shared_boxes;   // boxes are [batch, K, 1, 4], not [batch, K, C, 4]
  int64_t detections;  // D, rows of the result
  float iou_threshold;
  float score_threshold;  // a score that is not above it never counts
};

// boxes [batch, K, 1 or C, 4], scores [batch, K, C]; results num_detections [batch],
// found_boxes [batch, D, 4], found_scores [batch, D], found_classes [batch, D].
Status detection_nms(const float* boxes, const float* scores, const DetectionNmsShape& shape,
                     const ThreadPool& threads, int32_t* num_detections, float* found_boxes,
                     float* found_scores, int32_t* found_classes) noexcept;

}  // namespace cn2
