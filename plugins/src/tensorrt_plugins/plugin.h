// An IPluginV3 and its creator, made of a class that knows its attributes, shapes and kernels.
#pragma once

#include <cuda_runtime_api.h>

#include <new>
#include <optional>

#include "plugin_log.h"
#include "tensors.h"

namespace cn2 {

inline constexpr const char* kPluginVersion = "1";
inline constexpr const char* kPluginNamespace = "cn2";

// Call a function that may throw; what it throws is logged. Whether it did not.
template <typename Function>
bool catch_all(const char* name, const Function& function) noexcept {
  try {
    function();
    return true;
  } catch (const std::bad_alloc&) {
    log_plugin_error(name, "out of memory");
  } catch (const std::exception& error) {
    log_plugin_error(name, error.what());
  }
  return false;
}

// Op is copyable and never changes, so that all threads may share one. It has
//   kName, kFields (array of PluginField: names and types);
//   Op(const Fields&)                    throws PluginError;
//   void write(StoredFields&) const      what the constructor reads;
//   int32_t count_outputs() const;
//   static Kind input(int32_t), output(int32_t);
//   void make_shapes(std::span<const DimsExprs> inputs, ShapeMaker&, DimsExprs* outputs) const;
//   Shape shape(const Sizes&) const      throws PluginError unless a call can have these sizes;
//   static size_t workspace(const Shape&);
//   cudaError_t launch(const Shape&, FeatureType, const void* const* inputs, void* const* outputs,
//                      void* workspace, cudaStream_t) const.
template <typename Op>
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  Plugin(Op op, const char* space) : op_(std::move(op)), namespace_(space) {
    op_.write(stored_);
    fields_ = stored_.make_collection();
  }

  // ---- IPluginV3
  nvinfer1::IPluginCapability* getCapabilityInterface(
      nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  nvinfer1::IPluginV3* clone() noexcept override {
    Plugin* copy = nullptr;
    catch_all(Op::kName, [&] {
      copy = new Plugin(op_, namespace_);
      copy->input_count_ = input_count_;
    });
    return copy;
  }

  // ---- IPluginV3OneCore
  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return namespace_; }

  // ---- IPluginV3OneBuild
  int32_t getNbOutputs() const noexcept override { return op_.count_outputs(); }

  int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc*, int32_t) noexcept override {
    return catch_all(Op::kName, [&] { largest_shape(inputs, input_count); }) ? 0 : 1;
  }

  bool supportsFormatCombination(int32_t place, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                 int32_t input_count, int32_t) noexcept override {
    const nvinfer1::PluginTensorDesc& tensor = tensors[place].desc;
    if (tensor.format != nvinfer1::TensorFormat::kLINEAR) {
      return false;
    }
    const Kind kind = place < input_count ? Op::input(place) : Op::output(place - input_count);
    if (kind != Kind::kFeature) {
      return tensor.type ==
             (kind == Kind::kInt ? nvinfer1::DataType::kINT32 : nvinfer1::DataType::kFLOAT);
    }
    const int32_t first = first_feature(input_count);
    return place == first ? feature_type(tensor.type).has_value()
                          : tensor.type == tensors[first].desc.type;
  }

  int32_t getOutputDataTypes(nvinfer1::DataType* types, int32_t output_count,
                             const nvinfer1::DataType* inputs,
                             int32_t input_count) const noexcept override {
    for (int32_t i = 0; i < output_count; ++i) {
      const Kind kind = Op::output(i);
      types[i] = kind == Kind::kFeature ? inputs[first_feature(input_count)]
                 : kind == Kind::kInt   ? nvinfer1::DataType::kINT32
                                        : nvinfer1::DataType::kFLOAT;
    }
    return 0;
  }

  int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t input_count,
                          const nvinfer1::DimsExprs*, int32_t, nvinfer1::DimsExprs* outputs,
                          int32_t, nvinfer1::IExprBuilder& builder) noexcept override {
    const auto make = [&] {
      ShapeMaker maker(builder);
      op_.make_shapes({inputs, static_cast<size_t>(input_count)}, maker, outputs);
    };
    return catch_all(Op::kName, make) ? 0 : 1;
  }

  size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count,
                          const nvinfer1::DynamicPluginTensorDesc*,
                          int32_t) const noexcept override {
    size_t bytes = 0;
    catch_all(Op::kName, [&] { bytes = Op::workspace(largest_shape(inputs, input_count)); });
    return bytes;
  }

  // ---- IPluginV3OneRuntime
  int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count,
                        const nvinfer1::PluginTensorDesc*, int32_t) noexcept override {
    input_count_ = input_count;
    return catch_all(Op::kName, [&] { shape_of(inputs, input_count); }) ? 0 : 1;
  }

  int32_t enqueue(const nvinfer1::PluginTensorDesc* inputs, const nvinfer1::PluginTensorDesc*,
                  const void* const* data, void* const* results, void* workspace,
                  cudaStream_t stream) noexcept override {
    return catch_all(Op::kName, [&] { launch(inputs, data, results, workspace, stream); }) ? 0 : 1;
  }

  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    return clone();
  }

  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
    return &fields_;
  }

 private:
  static constexpr size_t kMostInputs = 32;
  using AllDims = std::array<nvinfer1::Dims, kMostInputs>;

  static int32_t first_feature(int32_t input_count) {
    int32_t first = 0;
    while (first < input_count && Op::input(first) != Kind::kFeature) {
      ++first;
    }
    return first;
  }

  static std::optional<FeatureType> feature_type(nvinfer1::DataType type) {
    switch (type) {
      case nvinfer1::DataType::kFLOAT:
        return FeatureType::kFloat32;
      case nvinfer1::DataType::kHALF:
        return FeatureType::kFloat16;
      default:
        return std::nullopt;
    }
  }

  template <typename Descriptions, typename DimsOf>
  auto shape_of(const Descriptions* inputs, int32_t input_count, const DimsOf& dims_of) const {
    if (input_count < 0 || static_cast<size_t>(input_count) > kMostInputs) {
      throw PluginError("expected at most " + std::to_string(kMostInputs) + " inputs, got " +
                        std::to_string(input_count));
    }
    AllDims dims;
    for (int32_t i = 0; i < input_count; ++i) {
      dims[static_cast<size_t>(i)] = dims_of(inputs[i]);
    }
    return op_.shape(Sizes{std::span(dims).first(static_cast<size_t>(input_count))});
  }

  auto shape_of(const nvinfer1::PluginTensorDesc* inputs, int32_t input_count) const {
    return shape_of(inputs, input_count, [](const auto& tensor) { return tensor.dims; });
  }

  auto largest_shape(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t input_count) const {
    return shape_of(inputs, input_count, [](const auto& tensor) { return tensor.max; });
  }

  void launch(const nvinfer1::PluginTensorDesc* inputs, const void* const* data,
              void* const* results, void* workspace, cudaStream_t stream) const {
    const auto shape = shape_of(inputs, input_count_);
    const int32_t first = first_feature(input_count_);
    const FeatureType type =
        first < input_count_ ? feature_type(inputs[first].type).value() : FeatureType::kFloat32;
    const cudaError_t failure = op_.launch(shape, type, data, results, workspace, stream);
    if (failure != cudaSuccess) {
      throw PluginError("expected a launch, got CUDA error " +
                        std::to_string(static_cast<int>(failure)));
    }
  }

  Op op_;
  const char* namespace_;
  StoredFields stored_;
  nvinfer1::PluginFieldCollection fields_;  // points into it
  int32_t input_count_ = 0;  // of the last shape change, which comes before each first enqueue
};

template <typename Op>
class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  explicit Creator(const char* space) : namespace_(space) {}

  nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase) noexcept override {
    nvinfer1::IPluginV3* made = nullptr;
    catch_all(Op::kName, [&] { made = new Plugin<Op>(Op(Fields(*fields)), namespace_); });
    return made;
  }

  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override {
    static const nvinfer1::PluginFieldCollection names{static_cast<int32_t>(Op::kFields.size()),
                                                       Op::kFields.data()};
    return &names;
  }

  const char* getPluginName() const noexcept override { return Op::kName; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return namespace_; }

 private:
  const char* namespace_;
};

// One creator of each, for the process.
nvinfer1::IPluginCreatorInterface& pyramid_roi_align_creator();
nvinfer1::IPluginCreatorInterface& proposal_nms_creator();
nvinfer1::IPluginCreatorInterface& detection_nms_creator();
nvinfer1::IPluginCreatorInterface& deform_conv_creator();
nvinfer1::IPluginCreatorInterface& standard_deform_conv_creator();  // where the parser looks: ""

}  // namespace cn2
