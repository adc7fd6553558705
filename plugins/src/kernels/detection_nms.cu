#include "collect_ranks.h"
#include "detection_nms_cuda.h"
#include "device_greedy_nms.cuh"

namespace cn2 {
namespace {

struct Arguments {
  const float* boxes;
  const float* scores;
  const float* score_threshold;
  int32_t* num_detections;
  float* found_boxes;
  float* found_scores;
  int32_t* found_classes;
  DetectionNmsShape shape;
};

// One picture's scores: the place of one is row * C + class, so ties go to the lower row, then to the lower
// class.
struct Rows {
  const float* scores;
  const float* boxes;
  uint32_t classes;
  bool shared_boxes;
  float iou_threshold;

  __device__ const float* box_of(uint32_t place) const {
    return boxes + int64_t{4} * (shared_boxes ? place / classes : place);
  }
  __device__ int32_t label_of(uint32_t place) const {
    return static_cast<int32_t>(place % classes);
  }
};

template <bool kCollected>
__global__ void __launch_bounds__(kRankThreads, 1)
    detection_nms_kernel(const Arguments all, const CollectedTable collected) {
  NmsBlock& block = shared_memory<NmsBlock>();
  const DetectionNmsShape& shape = all.shape;
  const int64_t picture = blockIdx.x;
  const int64_t count = shape.rows * shape.classes;
  const int64_t boxes = shape.shared_boxes ? shape.rows : count;
  const Rows rows{all.scores + picture * count, all.boxes + picture * boxes * 4,
                  static_cast<uint32_t>(shape.classes), shape.shared_boxes, shape.iou_threshold};
  const int64_t found = picture * shape.detections;
  const NmsResult result{all.found_boxes + 4 * found, all.found_scores + found,
                         all.found_classes + found, shape.detections};
  int64_t kept = 0;
  if constexpr (kCollected) {
    const CollectedRanks ranks{collected.ranks + picture * count, collected.found + picture};
    kept = greedy_nms_block(ranks, rows, result, block);
  } else {
    const RankedScores ranks{rows.scores, count, *all.score_threshold};
    kept = greedy_nms_block(ranks, rows, result, block);
  }
  if (threadIdx.x == 0) {
    all.num_detections[picture] = static_cast<int32_t>(kept);
  }
}

}  // namespace

bool is_possible_on_cuda(const DetectionNmsShape& shape) noexcept {
  constexpr int64_t kMostInt = std::numeric_limits<int32_t>::max();
  return shape.detections >= 1 && shape.detections <= kMostInt && shape.batch <= kMostGridX &&
         is_tensor({shape.batch, shape.rows, shape.classes, 4}) &&
         is_tensor({shape.batch, shape.rows, 4}) && shape.classes <= kMostInt &&
         (shape.classes == 0 || shape.rows < (int64_t{1} << 32) / shape.classes) &&
         is_tensor({shape.batch, shape.detections, 4}) && shape.iou_threshold >= 0 &&
         shape.iou_threshold <= 1 && can_collect(shape.batch, shape.rows * shape.classes);
}

size_t detection_nms_workspace_size(const DetectionNmsShape& shape) noexcept {
  return is_possible_on_cuda(shape)
             ? collect_workspace_size(shape.batch, shape.rows * shape.classes)
             : 0;
}

cudaError_t detection_nms_cuda(const float* boxes, const float* scores,
                               const float* score_threshold, const DetectionNmsShape& shape,
                               int32_t* num_detections, float* found_boxes, float* found_scores,
                               int32_t* found_classes, void* workspace, size_t workspace_size,
                               cudaStream_t stream) noexcept {
  if (!is_possible_on_cuda(shape) || workspace_size < detection_nms_workspace_size(shape)) {
    return cudaErrorInvalidValue;
  }
  if (shape.batch == 0) {
    return cudaSuccess;
  }
  const Arguments all{boxes,       scores,       score_threshold, num_detections,
                      found_boxes, found_scores, found_classes,   shape};
  const Launch at{dim3(static_cast<unsigned>(shape.batch)), kRankThreads, sizeof(NmsBlock), stream};
  const int64_t count = shape.rows * shape.classes;
  if (are_few(count)) {
    return launch(at, detection_nms_kernel<false>, all, CollectedTable{});
  }
  const CollectedTable collected = find_collected(workspace, shape.batch);
  const ScoreTable table{scores, shape.batch, count, score_threshold, 0.0f};
  const cudaError_t error = collect_ranks(table, collected, stream);
  return error == cudaSuccess ? launch(at, detection_nms_kernel<true>, all, collected) : error;
}

}  // namespace cn2
