// ProposalNMS, whatever computes it.
#pragma once

#include "operator.h"
#include "proposal_nms.h"

namespace cn2 {

// A call's tensors, checked; classes are null where there are none.
struct ProposalCall {
  const float *boxes, *scores;
  const int32_t* classes;
  ProposalNmsShape shape;
  float *kept_boxes, *kept_scores;
  int32_t* kept_classes;
};

// Kernel has kProvider and `static void run(const Context&, const ProposalCall&)`, which throws OpError.
template <typename Kernel>
class ProposalNms {
 public:
  static constexpr const char* kName = "ProposalNMS";
  static constexpr const char* kProvider = Kernel::kProvider;
  static constexpr Port kOptionalInts{ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, INPUT_OUTPUT_OPTIONAL};
  static constexpr std::array kInputs{kFloats, kFloats, kOptionalInts};
  static constexpr std::array kOutputs{kFloats, kFloats, kOptionalInts};

  explicit ProposalNms(const Attributes& attributes)
      : proposals_(attributes.get_int("proposals")),
        iou_threshold_(attributes.get_float("iou_threshold")) {
    if (proposals_ < 1) {
      throw OpError("proposals: expected 1 or more, got " + std::to_string(proposals_));
    }
  }

  void compute(const Context& context) const {
    const Input boxes = context.get_input(0);
    const Input scores = context.get_input(1);
    expect("boxes", boxes, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {-1, -1, 4});
    const int64_t batch = boxes.shape[0];
    const int64_t count = boxes.shape[1];
    expect("scores", scores, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {batch, count});
    const bool classed = context.has_input(2);
    const Input classes = classed ? context.get_input(2) : Input{};
    if (classed) {
      expect("classes", classes, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, {batch, count});
    }
    float* kept_boxes = context.make_floats(0, {batch, proposals_, 4});
    float* kept_scores = context.make_floats(1, {batch, proposals_});
    int32_t* kept_classes = classed ? context.make_ints(2, {batch, proposals_}) : nullptr;
    const ProposalNmsShape shape{batch, count, proposals_, iou_threshold_};
    Kernel::run(context, {boxes.floats(), scores.floats(), classes.ints(), shape, kept_boxes,
                          kept_scores, kept_classes});
  }

 private:
  int64_t proposals_;
  float iou_threshold_;
};

}  // namespace cn2
