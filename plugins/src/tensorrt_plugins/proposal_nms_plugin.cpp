#include "plugin.h"
#include "proposal_nms_cuda.h"

namespace cn2 {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

// A plugin must know how many outputs its node has, and sees only the attributes: so `classed` says it.
class ProposalNms {
 public:
  using Shape = ProposalNmsShape;

  static constexpr const char* kName = "ProposalNMS";
  inline static const std::array kFields{
      PluginField{"proposals", nullptr, PluginFieldType::kINT32},
      PluginField{"iou_threshold", nullptr, PluginFieldType::kFLOAT32},
      PluginField{"classed", nullptr, PluginFieldType::kINT32}};

  explicit ProposalNms(const Fields& fields)
      : proposals_(fields.get_int("proposals")),
        iou_threshold_(fields.get_float("iou_threshold")),
        classed_(fields.get_ints("classed", 1, 0)[0] != 0) {
    if (proposals_ < 1) {
      throw PluginError("proposals: expected 1 or more, got " + std::to_string(proposals_));
    }
  }

  void write(StoredFields& fields) const {
    fields.add("proposals", proposals_);
    fields.add("iou_threshold", iou_threshold_);
    fields.add("classed", classed_ ? int64_t{1} : int64_t{0});
  }

  int32_t count_outputs() const { return classed_ ? 3 : 2; }

  static Kind input(int32_t index) { return index == 2 ? Kind::kInt : Kind::kFloat; }
  static Kind output(int32_t index) { return input(index); }

  void make_shapes(std::span<const nvinfer1::DimsExprs> inputs, ShapeMaker& make,
                   nvinfer1::DimsExprs* outputs) const {
    const ShapeMaker::Size batch = expect_rank(inputs, 0, "boxes", 3).d[0];
    const ShapeMaker::Size rows = make.number(proposals_);
    outputs[0] = make.shape({batch, rows, make.number(4)});
    for (int32_t i = 1; i < count_outputs(); ++i) {
      outputs[i] = make.shape({batch, rows});
    }
  }

  Shape shape(const Sizes& sizes) const {
    const int64_t* boxes = sizes.expect(0, "boxes", {-1, -1, 4});
    sizes.expect(1, "scores", {boxes[0], boxes[1]});
    if (classed_) {
      sizes.expect(2, "classes", {boxes[0], boxes[1]});
    }
    if (sizes.inputs.size() > 2 && !classed_) {
      throw PluginError("expected attribute classed = 1 with input classes, got 0; export again");
    }
    const Shape made{boxes[0], boxes[1], proposals_, iou_threshold_};
    if (!is_possible_on_cuda(made)) {
      throw PluginError(
          "expected sizes and attributes as in docs/operators.md, got one out of range");
    }
    return made;
  }

  static size_t workspace(const Shape& shape) { return proposal_nms_workspace_size(shape); }

  cudaError_t launch(const Shape& shape, FeatureType, const void* const* inputs,
                     void* const* outputs, void* workspace, cudaStream_t stream) const {
    return proposal_nms_cuda(static_cast<const float*>(inputs[0]),
                             static_cast<const float*>(inputs[1]),
                             classed_ ? static_cast<const int32_t*>(inputs[2]) : nullptr, shape,
                             static_cast<float*>(outputs[0]), static_cast<float*>(outputs[1]),
                             classed_ ? static_cast<int32_t*>(outputs[2]) : nullptr, workspace,
                             ProposalNms::workspace(shape), stream);
  }

 private:
  int64_t proposals_;
  float iou_threshold_;
  bool classed_;
};

}  // namespace

nvinfer1::IPluginCreatorInterface& proposal_nms_creator() {
  static Creator<ProposalNms> creator(kPluginNamespace);
  return creator;
}

}  // namespace cn2
