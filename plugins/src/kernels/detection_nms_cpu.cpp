#include "detection_nms.h"

#include <algorithm>

#include "greedy_nms.h"
#include "tasks.h"

namespace cn2 {
namespace {

// One picture's part of the tensors.
struct Picture {
  const float* boxes;   // [K, 1 or C, 4]
  const float* scores;  // [K, C]
  int32_t* num_detections;
  float* found_boxes;      // [D, 4]
  float* found_scores;     // [D]
  int32_t* found_classes;  // [D]
};

bool is_valid(const DetectionNmsShape& shape) {
  return shape.detections >= 1 && shape.detections <= std::numeric_limits<int32_t>::max() &&
         can_exist({shape.batch, shape.rows, shape.classes, 4}) &&
         can_exist({shape.batch, shape.rows, 4}) &&
         shape.classes <= std::numeric_limits<int32_t>::max() &&
         (shape.classes == 0 || shape.rows < kMostRanked / shape.classes) &&
         can_exist({shape.batch, shape.detections, 4}) && shape.iou_threshold >= 0 &&
         shape.iou_threshold <= 1;
}

void suppress(const Picture& picture, const DetectionNmsShape& shape) {
  const auto classes = static_cast<size_t>(shape.classes);
  const auto detections = static_cast<size_t>(shape.detections);
  const size_t boxes_per_row = shape.shared_boxes ? 1 : classes;
  // A score's place is row * C + class, so ties go to the lower row, then to the lower class.
  const auto box_of = [&](size_t place) {
    return picture.boxes + 4 * (boxes_per_row == 1 ? place / classes : place);
  };
  const auto label_of = [&](size_t place) { return static_cast<int32_t>(place % classes); };
  size_t found = 0;
  const auto keep = [&](size_t place) {
    std::copy_n(box_of(place), 4, picture.found_boxes + 4 * found);
    picture.found_scores[found] = picture.scores[place];
    picture.found_classes[found] = label_of(place);
    ++found;
  };
  greedy_nms(picture.scores, static_cast<size_t>(shape.rows) * classes, shape.score_threshold,
             shape.iou_threshold, detections, box_of, label_of, keep);
  *picture.num_detections = static_cast<int32_t>(found);
  std::fill(picture.found_boxes + 4 * found, picture.found_boxes + 4 * detections, 0.0f);
  std::fill(picture.found_scores + found, picture.found_scores + detections, 0.0f);
  std::fill(picture.found_classes + found, picture.found_classes + detections, 0);
}

}  // namespace

Status detection_nms(const float* boxes, const float* scores, const DetectionNmsShape& shape,
                     const ThreadPool& threads, int32_t* num_detections, float* found_boxes,
                     float* found_scores, int32_t* found_classes) noexcept {
  if (!is_valid(shape)) {
    return Status::kInvalidArgument;
  }
  const auto rows = static_cast<size_t>(shape.rows);
  const auto classes = static_cast<size_t>(shape.classes);
  const auto detections = static_cast<size_t>(shape.detections);
  return run_tasks(threads, static_cast<size_t>(shape.batch), [&](size_t index) {
    const size_t found = index * detections;
    const Picture picture{boxes + index * rows * (shape.shared_boxes ? 1 : classes) * 4,
                          scores + index * rows * classes,
                          num_detections + index,
                          found_boxes + 4 * found,
                          found_scores + found,
                          found_classes + found};
    suppress(picture, shape);
  });
}

}  // namespace cn2
