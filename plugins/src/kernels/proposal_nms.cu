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
  RankedScores ranked;
  const float* boxes;
  const int32_t* classes;
  float iou_threshold;

  __device__ const float* box_of(uint32_t place) const { return boxes + int64_t{4} * place; }
  __device__ int32_t label_of(uint32_t place) const { return classes ? classes[place] : 0; }
};

__global__ void __launch_bounds__(kRankThreads, 1) proposal_nms_kernel(Arguments all) {
  const int64_t row = blockIdx.x * all.count;
  const int64_t kept = blockIdx.x * all.proposals;
  const Rows rows{{all.scores + row, all.count, 0.0f},
                  all.boxes + 4 * row,
                  all.classes ? all.classes + row : nullptr,
                  all.iou_threshold};
  const NmsResult result{all.kept_boxes + 4 * kept, all.kept_scores + kept,
                         all.classes ? all.kept_classes + kept : nullptr, all.proposals};
  greedy_nms_block(rows, result, shared_memory<NmsBlock>());
}

}  // namespace

bool is_possible_on_cuda(const ProposalNmsShape& shape) noexcept {
  const auto [batch, boxes, proposals, threshold] = shape;
  return proposals >= 1 && batch <= kMostGridX && boxes < int64_t{1} << 32 &&
         is_tensor({batch, boxes, 4}) && is_tensor({batch, proposals, 4}) && threshold >= 0 &&
         threshold <= 1;
}

size_t proposal_nms_workspace_size(const ProposalNmsShape&) noexcept {
  return 0;
}

cudaError_t proposal_nms_cuda(const float* boxes, const float* scores, const int32_t* classes,
                              const ProposalNmsShape& shape, float* kept_boxes, float* kept_scores,
                              int32_t* kept_classes, void*, size_t, cudaStream_t stream) noexcept {
  if (!is_possible_on_cuda(shape)) {
    return cudaErrorInvalidValue;
  }
  if (shape.batch == 0) {
    return cudaSuccess;
  }
  const Arguments all{boxes,        scores,      classes,         kept_boxes,         kept_scores,
                      kept_classes, shape.boxes, shape.proposals, shape.iou_threshold};
  const Launch at{dim3(static_cast<unsigned>(shape.batch)), kRankThreads, sizeof(NmsBlock), stream};
  return launch(at, proposal_nms_kernel, all);
}

}  // namespace cn2
