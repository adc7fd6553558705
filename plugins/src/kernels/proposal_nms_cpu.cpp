#include "proposal_nms.h"

#include <algorithm>

#include "greedy_nms.h"
#include "tasks.h"

namespace cn2 {
namespace {

// One picture's part of the tensors.
struct Picture {
  const float* boxes;      // [N, 4]
  const float* scores;     // [N]
  const int32_t* classes;  // [N] or null
  float* kept_boxes;       // [K, 4]
  float* kept_scores;      // [K]
  int32_t* kept_classes;   // [K]
};

bool is_valid(const ProposalNmsShape& shape) {
  const auto [batch, boxes, proposals, threshold] = shape;
  return proposals >= 1 && boxes < kMostRanked && can_exist({batch, boxes, 4}) &&
         can_exist({batch, proposals, 4}) && threshold >= 0 && threshold <= 1;
}

void suppress(const Picture& picture, size_t count, size_t proposals, float iou_threshold) {
  const auto box_of = [&](size_t row) { return picture.boxes + 4 * row; };
  const auto label_of = [&](size_t row) { return picture.classes ? picture.classes[row] : 0; };
  size_t kept = 0;
  const auto keep = [&](size_t row) {
    std::copy_n(box_of(row), 4, picture.kept_boxes + 4 * kept);
    picture.kept_scores[kept] = picture.scores[row];
    if (picture.classes) {
      picture.kept_classes[kept] = picture.classes[row];
    }
    ++kept;
  };
  greedy_nms(picture.scores, count, 0.0f, iou_threshold, proposals, box_of, label_of, keep);
  std::fill(picture.kept_boxes + 4 * kept, picture.kept_boxes + 4 * proposals, 0.0f);
  std::fill(picture.kept_scores + kept, picture.kept_scores + proposals, 0.0f);
  if (picture.classes) {
    std::fill(picture.kept_classes + kept, picture.kept_classes + proposals, 0);
  }
}

}  // namespace

Status proposal_nms(const float* boxes, const float* scores, const int32_t* classes,
                    const ProposalNmsShape& shape, const ThreadPool& threads, float* kept_boxes,
                    float* kept_scores, int32_t* kept_classes) noexcept {
  if (!is_valid(shape)) {
    return Status::kInvalidArgument;
  }
  const auto count = static_cast<size_t>(shape.boxes);
  const auto proposals = static_cast<size_t>(shape.proposals);
  return run_tasks(threads, static_cast<size_t>(shape.batch), [&](size_t index) {
    const size_t row = index * count;
    const size_t kept = index * proposals;
    const Picture picture{
        boxes + 4 * row,       scores + row,       classes ? classes + row : nullptr,
        kept_boxes + 4 * kept, kept_scores + kept, classes ? kept_classes + kept : nullptr};
    suppress(picture, count, proposals, shape.iou_threshold);
  });
}

}  // namespace cn2
