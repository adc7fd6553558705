// PyramidRoIAlign, whatever computes it.
#pragma once

#include "operator.h"
#include "pyramid_roi_align.h"

namespace cn2 {

// A call's tensors, checked.
struct PoolingCall {
  struct Level {
    const void* data;  // [batch, channels, height, width]
    int64_t height, width, stride;
  };

  const float* rois;
  std::vector<Level> levels;
  const std::vector<float>& borders;
  PyramidRoIAlignShape shape;
  void* pooled;
};

// Kernel has kProvider, kFeature (the type of features and of the result) and
// `static void run(const Context&, const PoolingCall&)`, which throws OpError.
template <typename Kernel>
class PyramidRoIAlign {
 public:
  static constexpr const char* kName = "PyramidRoIAlign";
  static constexpr const char* kProvider = Kernel::kProvider;
  static constexpr std::array kInputs{kFloats, Port{Kernel::kFeature, INPUT_OUTPUT_VARIADIC}};
  static constexpr std::array kOutputs{Port{Kernel::kFeature}};

  explicit PyramidRoIAlign(const Attributes& attributes)
      : strides_(attributes.get_ints("strides")),
        borders_(attributes.get_floats("level_borders")),
        canonical_size_(attributes.get_float("canonical_size")),
        output_size_(attributes.get_int("output_size")),
        sampling_ratio_(attributes.get_int("sampling_ratio")) {
    if (strides_.empty() || borders_.size() != strides_.size() - 1) {
      throw OpError("expected one of level_borders less than of strides, got " +
                    std::to_string(borders_.size()) + " and " + std::to_string(strides_.size()));
    }
  }

  void compute(const Context& context) const {
    const Input rois = context.get_input(0);
    expect("rois", rois, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, {-1, -1, 4});
    const size_t count = context.count_inputs() - 1;
    if (count != strides_.size()) {
      throw OpError("expected " + std::to_string(strides_.size()) + " features, got " +
                    std::to_string(count));
    }
    if (output_size_ < 1) {
      throw OpError("output_size: expected 1 or more, got " + std::to_string(output_size_));
    }
    PyramidRoIAlignShape shape{rois.shape[0], rois.shape[1],   -1,
                               output_size_,  sampling_ratio_, canonical_size_};
    std::vector<PoolingCall::Level> levels;
    for (size_t i = 0; i < count; ++i) {
      const Input feature = context.get_input(1 + i);
      expect("features", feature, Kernel::kFeature, {shape.batch, shape.channels, -1, -1});
      shape.channels = feature.shape[1];
      levels.push_back({feature.data, feature.shape[2], feature.shape[3], strides_[i]});
    }
    void* pooled = context.make_output(
        0, {shape.batch, shape.rois, shape.channels, output_size_, output_size_});
    Kernel::run(context, {rois.floats(), std::move(levels), borders_, shape, pooled});
  }

 private:
  std::vector<int64_t> strides_;
  std::vector<float> borders_;
  float canonical_size_;
  int64_t output_size_;
  int64_t sampling_ratio_;
};

}  // namespace cn2
