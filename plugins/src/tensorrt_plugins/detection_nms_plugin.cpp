#include "detection_nms_cuda.h"
#include "plugin.h"

namespace cn2 {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

class DetectionNms {
 public:
  using Shape = DetectionNmsShape;

  static constexpr const char* kName = "DetectionNMS";
  inline static const std::array kFields{
      PluginField{"detections", nullptr, PluginFieldType::kINT32},
      PluginField{"iou_threshold", nullptr, PluginFieldType::kFLOAT32}};

  explicit DetectionNms(const Fields& fields)
      : detections_(fields.get_int("detections")),
        iou_threshold_(fields.get_float("iou_threshold")) {
    if (detections_ < 1) {
      throw PluginError("detections: expected 1 or more, got " + std::to_string(detections_));
    }
  }

  void write(StoredFields& fields) const {
    fields.add("detections", detections_);
    fields.add("iou_threshold", iou_threshold_);
  }

  static int32_t count_outputs() { return 4; }
  static Kind input(int32_t) { return Kind::kFloat; }
  static Kind output(int32_t index) { return index % 3 == 0 ? Kind::kInt : Kind::kFloat; }

  void make_shapes(std::span<const nvinfer1::DimsExprs> inputs, ShapeMaker& make,
                   nvinfer1::DimsExprs* outputs) const {
    const ShapeMaker::Size batch = expect_rank(inputs, 0, "boxes", 4).d[0];
    const ShapeMaker::Size rows = make.number(detections_);
    outputs[0] = make.shape({batch});
    outputs[1] = make.shape({batch, rows, make.number(4)});
    outputs[2] = outputs[3] = make.shape({batch, rows});
  }

  Shape shape(const Sizes& sizes) const {
    const int64_t* boxes = sizes.expect(0, "boxes", {-1, -1, -1, 4});
    const int64_t* scores = sizes.expect(1, "scores", {boxes[0], boxes[1], -1});
    sizes.expect(2, "score_threshold", {});
    if (boxes[2] != 1 && boxes[2] != scores[2]) {
      throw PluginError("boxes: expected 1 or " + std::to_string(scores[2]) + " boxes a row, got " +
                        std::to_string(boxes[2]));
    }
    const float on_device = 0;  // where the threshold is
    const Shape made{scores[0],   scores[1],      scores[2], boxes[2] == 1,
                     detections_, iou_threshold_, on_device};
    if (!is_possible_on_cuda(made)) {
      throw PluginError(
          "expected sizes and attributes as in docs/operators.md, got one out of range");
    }
    return made;
  }

  static size_t workspace(const Shape& shape) { return detection_nms_workspace_size(shape); }

  cudaError_t launch(const Shape& shape, FeatureType, const void* const* inputs,
                     void* const* outputs, void* workspace, cudaStream_t stream) const {
    return detection_nms_cuda(
        static_cast<const float*>(inputs[0]), static_cast<const float*>(inputs[1]),
        static_cast<const float*>(inputs[2]), shape, static_cast<int32_t*>(outputs[0]),
        static_cast<float*>(outputs[1]), static_cast<float*>(outputs[2]),
        static_cast<int32_t*>(outputs[3]), workspace, DetectionNms::workspace(shape), stream);
  }

 private:
  int64_t detections_;
  float iou_threshold_;
};

}  // namespace

nvinfer1::IPluginCreatorInterface& detection_nms_creator() {
  static Creator<DetectionNms> creator(kPluginNamespace);
  return creator;
}

}  // namespace cn2
