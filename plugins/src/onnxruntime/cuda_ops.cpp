// The operators on ONNX Runtime's CUDA provider, over the kernels of *_cuda.h. All tensors are in device
// memory, the score threshold too: nothing waits for the GPU.
#include <cuda_runtime_api.h>

#include "detection_nms_cuda.h"
#include "detection_nms_op.h"
#include "proposal_nms_cuda.h"
#include "proposal_nms_op.h"
#include "pyramid_roi_align_cuda.h"
#include "pyramid_roi_align_op.h"

namespace cn2 {
namespace {

constexpr const char* kCuda = "CUDAExecutionProvider";

void throw_failure(cudaError_t failure) {
  if (failure == cudaErrorInvalidValue) {
    throw OpError("expected sizes and attributes as in docs/operators.md, got one out of range");
  }
  if (failure != cudaSuccess) {
    throw OpError("expected a launch, got CUDA error " + std::to_string(static_cast<int>(failure)));
  }
}

// Memory for one call, taken and given back in the stream's order. ONNX Runtime's own allocator knows nothing of
// streams when an operator asks it: what is given back while the kernels still run, a run on another
// stream may get.
class Workspace {
 public:
  Workspace(size_t bytes, cudaStream_t stream) : bytes_(bytes), stream_(stream) {
    if (bytes > 0) {
      throw_failure(cudaMallocAsync(&data_, bytes, stream));
    }
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    if (data_ != nullptr) {
      cudaFreeAsync(data_, stream_);
    }
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_;
  cudaStream_t stream_;
};

template <FeatureType type, ONNXTensorElementDataType ort_type>
struct Pooling {
  static constexpr const char* kProvider = kCuda;
  static constexpr ONNXTensorElementDataType kFeature = ort_type;

  static void run(const Context& context, const PoolingCall& call) {
    auto* stream = static_cast<cudaStream_t>(context.gpu_stream());
    std::vector<CudaPyramidLevel> levels;
    for (const PoolingCall::Level& level : call.levels) {
      levels.push_back({level.data, level.height, level.width, level.stride});
    }
    const Workspace workspace(pyramid_roi_align_workspace_size(call.shape), stream);
    throw_failure(pyramid_roi_align_cuda(call.rois, levels.data(), levels.size(),
                                         call.borders.data(), call.shape, type, call.pooled,
                                         workspace.data(), workspace.bytes(), stream));
  }
};

struct Proposals {
  static constexpr const char* kProvider = kCuda;

  static void run(const Context& context, const ProposalCall& call) {
    auto* stream = static_cast<cudaStream_t>(context.gpu_stream());
    const Workspace workspace(proposal_nms_workspace_size(call.shape), stream);
    throw_failure(proposal_nms_cuda(call.boxes, call.scores, call.classes, call.shape,
                                    call.kept_boxes, call.kept_scores, call.kept_classes,
                                    workspace.data(), workspace.bytes(), stream));
  }
};

struct Detections {
  static constexpr const char* kProvider = kCuda;

  static void run(const Context& context, const DetectionCall& call) {
    auto* stream = static_cast<cudaStream_t>(context.gpu_stream());
    const Workspace workspace(detection_nms_workspace_size(call.shape), stream);
    throw_failure(detection_nms_cuda(call.boxes, call.scores, call.score_threshold, call.shape,
                                     call.num_detections, call.found_boxes, call.found_scores,
                                     call.found_classes, workspace.data(), workspace.bytes(),
                                     stream));
  }
};

}  // namespace

const bool kHaveCudaOperators = true;

std::vector<const OrtCustomOp*> cuda_operators() {
  static const Operator<
      PyramidRoIAlign<Pooling<FeatureType::kFloat32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT>>>
      pooling;
  static const Operator<
      PyramidRoIAlign<Pooling<FeatureType::kFloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16>>>
      half_pooling;
  static const Operator<ProposalNms<Proposals>> proposals;
  static const Operator<DetectionNms<Detections>> detections;
  return {&pooling, &half_pooling, &proposals, &detections};
}

}  // namespace cn2
