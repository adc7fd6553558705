// Greedy suppression: rows from the best on; one stays unless a better one of its class overlaps it.
#pragma once

#include <algorithm>

#include "kept_boxes.h"
#include "ranking.h"

namespace cn2 {

// The survivors among `count` scores above a threshold, at most `most` of them, best first.
//   box_of(row)     pointer to x0, y0, x1, y1.
//   label_of(row)   its class; only boxes of one class suppress each other.
//   keep(row)       is called for each survivor, in order.
// As classes do not touch each other, going through all rows best first equals doing so class by class, and
// can end when enough are kept; so few of the scores are ever sorted.
template <typename BoxOf, typename LabelOf, typename Keep>
void greedy_nms(const float* scores, size_t count, float score_threshold, float iou_threshold,
                size_t most, const BoxOf& box_of, const LabelOf& label_of, const Keep& keep) {
  KeptBoxes kept(iou_threshold);
  std::vector<Rank> candidates;
  Rank last = 0;
  size_t found = 0;
  for (size_t limit = std::max<size_t>(2 * most, 256);; limit *= 4) {
    find_best(scores, count, score_threshold, last, limit, candidates);
    for (const Rank candidate : candidates) {
      const size_t row = row_of(candidate);
      if (!kept.suppress(box_of(row), label_of(row))) {
        kept.add(box_of(row), label_of(row));
        keep(row);
        if (++found == most) {
          return;
        }
      }
    }
    if (candidates.size() < limit) {
      return;
    }
    last = candidates.back();
  }
}

}  // namespace cn2
