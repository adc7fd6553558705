#include "pyramid_roi_align_op.h"

#include <algorithm>

#include "half.h"

namespace cn2 {
namespace {

void pool(const Context& context, const PoolingCall& call, const std::vector<PyramidLevel>& levels,
          float* pooled) {
  context.run([&](const ThreadPool& threads) {
    return pyramid_roi_align(call.rois, levels.data(), levels.size(), call.borders.data(),
                             call.shape, threads, pooled);
  });
}

struct OnCpu {
  static constexpr const char* kProvider = nullptr;
  static constexpr auto kFeature = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;

  static void run(const Context& context, const PoolingCall& call) {
    std::vector<PyramidLevel> levels;
    for (const PoolingCall::Level& level : call.levels) {
      levels.push_back(
          {static_cast<const float*>(level.data), level.height, level.width, level.stride});
    }
    pool(context, call, levels, static_cast<float*>(call.pooled));
  }
};

// Half precision is for GPUs; here it is widened first, so that the same file runs.
struct HalfOnCpu {
  static constexpr const char* kProvider = nullptr;
  static constexpr auto kFeature = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;

  static void run(const Context& context, const PoolingCall& call) {
    const PyramidRoIAlignShape& shape = call.shape;
    std::vector<std::vector<float>> wide;
    std::vector<PyramidLevel> levels;
    for (const PoolingCall::Level& level : call.levels) {
      const auto* halves = static_cast<const uint16_t*>(level.data);
      const int64_t count = shape.batch * shape.channels * level.height * level.width;
      std::vector<float>& floats = wide.emplace_back(static_cast<size_t>(count));
      std::transform(halves, halves + count, floats.begin(), float_of_half);
      levels.push_back({floats.data(), level.height, level.width, level.stride});
    }
    std::vector<float> pooled(static_cast<size_t>(shape.batch * shape.rois * shape.channels *
                                                  shape.output_size * shape.output_size));
    pool(context, call, levels, pooled.data());
    std::transform(pooled.begin(), pooled.end(), static_cast<uint16_t*>(call.pooled),
                   half_of_float);
  }
};

}  // namespace

const OrtCustomOp& pyramid_roi_align_operator() {
  static const Operator<PyramidRoIAlign<OnCpu>> op;
  return op;
}

const OrtCustomOp& half_pyramid_roi_align_operator() {
  static const Operator<PyramidRoIAlign<HalfOnCpu>> op;
  return op;
}

}  // namespace cn2
