// Greedy suppression, exactly so many rows a picture (docs/operators.md).
#pragma once

#include "kernels.h"

namespace cn2 {

struct ProposalNmsShape {
  int64_t batch;
  int64_t boxes;      // N, of each picture
  int64_t proposals;  // K, rows of the result; also above N
  float iou_threshold;
};

// boxes [batch, N, 4], scores [batch, N], classes [batch, N] or null; results [batch, K, 4],
// [batch, K] and, with classes, [batch, K] (else not touched: null is fine).
Status proposal_nms(const float* boxes, const float* scores, const int32_t* classes,
                    const ProposalNmsShape& shape, const ThreadPool& threads, float* kept_boxes,
                    float* kept_scores, int32_t* kept_classes) noexcept;

}  // namespace cn2
