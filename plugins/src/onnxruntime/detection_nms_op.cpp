#include "detection_nms_op.h"

namespace cn2 {
namespace {

struct OnCpu {
  static constexpr const char* kProvider = nullptr;

  static void run(const Context& context, const DetectionCall& call) {
    DetectionNmsShape shape = call.shape;
    shape.score_threshold = *call.score_threshold;
    context.run([&](const ThreadPool& threads) {
      return detection_nms(call.boxes, call.scores, shape, threads, call.num_detections,
                           call.found_boxes, call.found_scores, call.found_classes);
    });
  }
};

}  // namespace

const OrtCustomOp& detection_nms_operator() {
  static const Operator<DetectionNms<OnCpu>> op;
  return op;
}

}  // namespace cn2
