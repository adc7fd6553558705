#include "plugin.h"
#include "pyramid_roi_align_cuda.h"

namespace cn2 {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

class PyramidRoIAlign {
 public:
  struct Shape {
    PyramidRoIAlignShape call;
    std::array<CudaPyramidLevel, kMostCudaLevels> levels;  // without data
  };

  static constexpr const char* kName = "PyramidRoIAlign";
  inline static const std::array kFields{
      PluginField{"strides", nullptr, PluginFieldType::kINT32},
      PluginField{"level_borders", nullptr, PluginFieldType::kFLOAT32},
      PluginField{"canonical_size", nullptr, PluginFieldType::kFLOAT32},
      PluginField{"output_size", nullptr, PluginFieldType::kINT32},
      PluginField{"sampling_ratio", nullptr, PluginFieldType::kINT32}};

  explicit PyramidRoIAlign(const Fields& fields)
      : strides_(fields.get_ints("strides")),
        borders_(fields.get_floats("level_borders")),
        canonical_size_(fields.get_float("canonical_size")),
        output_size_(fields.get_int("output_size")),
        sampling_ratio_(fields.get_int("sampling_ratio")) {
    if (strides_.empty() || strides_.size() > kMostCudaLevels) {
      throw PluginError("strides: expected 1 to " + std::to_string(kMostCudaLevels) + ", got " +
                        std::to_string(strides_.size()));
    }
    if (borders_.size() != strides_.size() - 1) {
      throw PluginError("expected one of level_borders less than of strides, got " +
                        std::to_string(borders_.size()) + " and " +
                        std::to_string(strides_.size()));
    }
  }

  void write(StoredFields& fields) const {
    fields.add("strides", strides_);
    fields.add("level_borders", borders_);
    fields.add("canonical_size", canonical_size_);
    fields.add("output_size", output_size_);
    fields.add("sampling_ratio", sampling_ratio_);
  }

  static int32_t count_outputs() { return 1; }
  static Kind input(int32_t index) { return index == 0 ? Kind::kFloat : Kind::kFeature; }
  static Kind output(int32_t) { return Kind::kFeature; }

  void make_shapes(std::span<const nvinfer1::DimsExprs> inputs, ShapeMaker& make,
                   nvinfer1::DimsExprs* outputs) const {
    check_count(inputs.size());
    const ShapeMaker::Size side = make.number(output_size_);
    const nvinfer1::DimsExprs& rois = expect_rank(inputs, 0, "rois", 3);
    const nvinfer1::DimsExprs& finest = expect_rank(inputs, 1, "features", 4);
    outputs[0] = make.shape({rois.d[0], rois.d[1], finest.d[1], side, side});
  }

  Shape shape(const Sizes& sizes) const {
    check_count(sizes.inputs.size());
    const int64_t* rois = sizes.expect(0, "rois", {-1, -1, 4});
    Shape made{{rois[0], rois[1], -1, output_size_, sampling_ratio_, canonical_size_}, {}};
    for (size_t i = 0; i < strides_.size(); ++i) {
      const int64_t* feature =
          sizes.expect(i + 1, "features", {rois[0], made.call.channels, -1, -1});
      made.call.channels = feature[1];
      made.levels[i] = {nullptr, feature[2], feature[3], strides_[i]};
    }
    if (!is_possible_on_cuda(made.levels.data(), strides_.size(), borders_.data(), made.call)) {
      throw PluginError(
          "expected sizes and attributes as in docs/operators.md, got one out of range");
    }
    return made;
  }

  static size_t workspace(const Shape& shape) {
    return pyramid_roi_align_workspace_size(shape.call);
  }

  cudaError_t launch(Shape shape, FeatureType type, const void* const* inputs, void* const* outputs,
                     void* workspace, cudaStream_t stream) const {
    for (size_t i = 0; i < strides_.size(); ++i) {
      shape.levels[i].data = inputs[i + 1];
    }
    return pyramid_roi_align_cuda(static_cast<const float*>(inputs[0]), shape.levels.data(),
                                  strides_.size(), borders_.data(), shape.call, type, outputs[0],
                                  workspace, PyramidRoIAlign::workspace(shape), stream);
  }

 private:
  void check_count(size_t inputs) const {
    if (inputs != strides_.size() + 1) {
      throw PluginError("expected rois and " + std::to_string(strides_.size()) + " features, got " +
                        std::to_string(inputs) + " inputs");
    }
  }

  std::vector<int64_t> strides_;
  std::vector<float> borders_;
  float canonical_size_;
  int64_t output_size_;
  int64_t sampling_ratio_;
};

}  // namespace

nvinfer1::IPluginCreatorInterface& pyramid_roi_align_creator() {
  static Creator<PyramidRoIAlign> creator(kPluginNamespace);
  return creator;
}

}  // namespace cn2
