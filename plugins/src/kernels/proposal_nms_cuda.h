// Greedy suppression, exactly so many rows a picture, on the GPU (docs/operators.md).
#pragma once

#include <cuda_runtime_api.h>

#include "proposal_nms.h"

namespace cn2 {

// As proposal_nms, with all pointers to device memory.
//   workspace   proposal_nms_workspace_size(shape) bytes.
cudaError_t proposal_nms_cuda(const float* boxes, const float* scores, const int32_t* classes,
                              const ProposalNmsShape& shape, float* kept_boxes, float* kept_scores,
                              int32_t* kept_classes, void* workspace, size_t workspace_size,
                              cudaStream_t stream) noexcept;

// Bytes; 0 for a shape that no call can have.
size_t proposal_nms_workspace_size(const ProposalNmsShape& shape) noexcept;

// Whether a call can have these sizes and attributes.
bool is_possible_on_cuda(const ProposalNmsShape& shape) noexcept;

}  // namespace cn2
