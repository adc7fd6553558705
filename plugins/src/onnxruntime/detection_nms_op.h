// DetectionNMS, whatever computes it.
#pragma once

#include "detection_nms.h"
#include "operator.h"

namespace cn2 {

// A call's tensors, checked. The threshold is where the others are: the shape's is not set.
struct DetectionCall {
  const float *boxes, *scores, *score_threshold;
  DetectionNmsShape shape;
  int32_t* num_detections;
  float *found_boxes, *found_scores;
  int32_t* found_classes;
};

// Kernel has kProvider and `static void run(const Context&, const DetectionCall&)`, which throws OpError.
template <typename Kernel>
class DetectionNms {
 public:
  static constexpr const char* kName = "DetectionNMS";
  static constexpr const char* kProvider = Kernel::kProvider;
  static constexpr std::array kInputs{kFloats, kFloats, kFloats};
  static constexpr std::array kOutputs{kInts, kFloats, kFloats, kInts};

  explicit DetectionNms(const Attributes& attributes)
      : detections_(attributes.get_int("detections")),
        iou_threshold_(attributes.get_float("iou_threshold")) {
    if (detections_ < 1) {
      throw OpError("detections: expected 1 or more, got " + std::to_string(detections_));
    }
  }

  void compute(const Context& context) const {
    const Input boxes = context.get_input(0);
    const Input scores = context.get_input(1);
    const Input threshold = context.get_input(2);
    expect("boxes", boxes, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {-1, -1, -1, 4});
    expect("scores", scores, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
           {boxes.shape[0], boxes.shape[1], -1});
    expect("score_threshold", threshold, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {});
    const auto [batch, rows, classes] =
        std::array{scores.shape[0], scores.shape[1], scores.shape[2]};
    if (boxes.shape[2] != 1 && boxes.shape[2] != classes) {
      throw OpError("boxes: expected 1 or " + std::to_string(classes) + " boxes a row, got " +
                    describe(boxes));
    }
    int32_t* counts = context.make_ints(0, {batch});
    float* found_boxes = context.make_floats(1, {batch, detections_, 4});
    float* found_scores = context.make_floats(2, {batch, detections_});
    int32_t* found_classes = context.make_ints(3, {batch, detections_});
    const DetectionNmsShape shape{batch,       rows,           classes, boxes.shape[2] == 1,
                                  detections_, iou_threshold_, 0};
    Kernel::run(context, {boxes.floats(), scores.floats(), threshold.floats(), shape, counts,
                          found_boxes, found_scores, found_classes});
  }

 private:
  int64_t detections_;
  float iou_threshold_;
};

}  // namespace cn2
