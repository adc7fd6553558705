#include "pyramid_roi_align.h"

#include "operator.h"

namespace cn2 {
namespace {

class PyramidRoIAlign {
 public:
  static constexpr const char* kName = "PyramidRoIAlign";
  static constexpr std::array kInputs{
      kFloats, Port{ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, INPUT_OUTPUT_VARIADIC}};
  static constexpr std::array kOutputs{kFloats};

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
    int64_t channels = -1;
    std::vector<PyramidLevel> levels;
    for (size_t i = 0; i < count; ++i) {
      const Input feature = context.get_input(1 + i);
      expect("features", feature, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
             {rois.shape[0], channels, -1, -1});
      channels = feature.shape[1];
      levels.push_back({feature.floats(), feature.shape[2], feature.shape[3], strides_[i]});
    }
    const PyramidRoIAlignShape shape{rois.shape[0], rois.shape[1],   channels,
                                     output_size_,  sampling_ratio_, canonical_size_};
    if (output_size_ < 1) {
      throw OpError("output_size: expected 1 or more, got " + std::to_string(output_size_));
    }
    float* pooled = context.make_floats(
        0, {shape.batch, shape.rois, shape.channels, output_size_, output_size_});
    context.run([&](const ThreadPool& threads) {
      return pyramid_roi_align(rois.floats(), levels.data(), levels.size(), borders_.data(), shape,
                               threads, pooled);
    });
  }

 private:
  std::vector<int64_t> strides_;
  std::vector<float> borders_;
  float canonical_size_;
  int64_t output_size_;
  int64_t sampling_ratio_;
};

}  // namespace

const OrtCustomOp& pyramid_roi_align_operator() {
  static const Operator<PyramidRoIAlign> op;
  return op;
}

}  // namespace cn2
