#include "collect_ranks.h"
#include "device_greedy_nms.cuh"
#include "proposal_nms_cuda.h"

namespace cn2 {
namespace {

struct Arguments {
  const float* boxes;
  const float* scores;
  const int32_t* classes;
  float* kept_boxes;
  float* kept_scores;
  int32_t* kept_classes;
  int64_t count, proposals;
  float iou_threshold;
};

// One picture's boxes.
struct Rows {
  const float* scores;
  const float* boxes;
  const int32_t* classes;
  float iou_threshold;

  __device__ const float* box_of(uint32_t place) const { return boxes + int64_t{4} * place; }
  __device__ int32_t label_of(uint32_t place) const { return classes ? classes[place] : 0; }
};

template <bool kCollected>
__global__ void __launch_bounds__(kRankThreads, 1)
    proposal_nms_kernel(const Arguments all, const CollectedTable collected) {
  NmsBlock& block = shared_memory<NmsBlock>();
  const int64_t row = blockIdx.x * all.count;
  const int64_t kept = blockIdx.x * all.proposals;
  const Rows rows{all.scores + row, all.boxes + 4 * row, all.classes ? all.classes + row : nullptr,
                  all.iou_threshold};
  const NmsResult result{all.kept_boxes + 4 * kept, all.kept_scores + kept,
                         all.classes ? all.kept_classes + kept : nullptr, all.proposals};
  if constexpr (kCollected) {
    const CollectedRanks ranks{collected.ranks + row, collected.found + blockIdx.x};
    greedy_nms_block(ranks, rows, result, block);
  } else {
    greedy_nms_block(RankedScores{rows.scores, all.count, 0.0f}, rows, result, block);
  }
}

}  // namespace

bool is_possible_on_cuda(const ProposalNmsShape& shape) noexcept {
  const auto [batch, boxes, proposals, threshold] = shape;
  return proposals >= 1 && batch <= kMostGridX && boxes < int64_t{1} << 32 &&
         is_tensor({batch, boxes, 4}) && is_tensor({batch, proposals, 4}) && threshold >= 0 &&
         threshold <= 1 && can_collect(batch, boxes);
}

size_t proposal_nms_workspace_size(const ProposalNmsShape& shape) noexcept {
  return is_possible_on_cuda(shape) ? collect_workspace_size(shape.batch, shape.boxes) : 0;
}

cudaError_t proposal_nms_cuda(const float* boxes, const float* scores, const int32_t* classes,
                              const ProposalNmsShape& shape, float* kept_boxes, float* kept_scores,
                              int32_t* kept_classes, void* workspace, size_t workspace_size,
                              cudaStream_t stream) noexcept {
  if (!is_possible_on_cuda(shape) || workspace_size < proposal_nms_workspace_size(shape)) {
    return cudaErrorInvalidValue;
  }
  if (shape.batch == 0) {
    return cudaSuccess;
  }
  const Arguments all{boxes,        scores,      classes,         kept_boxes,         kept_scores,
                      kept_classes, shape.boxes, shape.proposals, shape.iou_threshold};
  const Launch at{dim3(static_cast<unsigned>(shape.batch)), kRankThreads, sizeof(NmsBlock), stream};
  if (are_few(shape.boxes)) {
    return launch(at, proposal_nms_kernel<false>, all, CollectedTable{});
  }
  const CollectedTable collected = find_collected(workspace, shape.batch);
  const ScoreTable table{scores, shape.batch, shape.boxes, nullptr, 0.0f};
  const cudaError_t error = collect_ranks(table, collected, stream);
  return error == cudaSuccess ? launch(at, proposal_nms_kernel<true>, all, collected) : error;
}

}  // namespace cn2
