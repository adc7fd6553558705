#include "proposal_nms_op.h"

namespace cn2 {
namespace {

struct OnCpu {
  static constexpr const char* kProvider = nullptr;

  static void run(const Context& context, const ProposalCall& call) {
    context.run([&](const ThreadPool& threads) {
      return proposal_nms(call.boxes, call.scores, call.classes, call.shape, threads,
                          call.kept_boxes, call.kept_scores, call.kept_classes);
    });
  }
};

}  // namespace

const OrtCustomOp& proposal_nms_operator() {
  static const Operator<ProposalNms<OnCpu>> op;
  return op;
}

}  // namespace cn2
