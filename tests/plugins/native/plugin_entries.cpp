// The entries of plugin_entries.h: the part of TensorRT that plugins see.
#include "plugin_entries.h"

#include <NvInferRuntime.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device_arrays.h"

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);

namespace {

using nvinfer1::DimensionOperation;
using nvinfer1::IDimensionExpr;
using nvinfer1::IPluginV3;

std::string logged;

class Logger final : public nvinfer1::ILogger, public nvinfer1::ILoggerFinder {
 public:
  void log(Severity, const char* line) noexcept override { (logged += line) += "\n"; }
  nvinfer1::ILogger* findLogger() override { return this; }
};

// A number, as TensorRT's expressions are where all sizes are known.
class Number final : public IDimensionExpr, private nvinfer1::apiv::VDimensionExpr {
 public:
  explicit Number(int64_t value) : value_(value) { mImpl = this; }
  int64_t value() const { return value_; }

 private:
  bool isConstant() const noexcept override { return true; }
  int64_t getConstantValue() const noexcept override { return value_; }
  bool isSizeTensor() const noexcept override { return false; }

  int64_t value_;
};

int64_t value_of(const IDimensionExpr& size) {
  return static_cast<const Number&>(size).value();
}

class Numbers final : public nvinfer1::IExprBuilder, private nvinfer1::apiv::VExprBuilder {
 public:
  Numbers() { mImpl = this; }
  const IDimensionExpr* make(int64_t value) { return &made_.emplace_back(value); }

 private:
  const IDimensionExpr* constant(int64_t value) noexcept override { return make(value); }
  const IDimensionExpr* operation(DimensionOperation operation, const IDimensionExpr& a,
                                  const IDimensionExpr& b) noexcept override {
    const int64_t left = value_of(a);
    const int64_t right = value_of(b);
    switch (operation) {
      case DimensionOperation::kSUM:
        return make(left + right);
      case DimensionOperation::kFLOOR_DIV:
        return make((left - (left % right + right) % right) / right);
      default:
        return nullptr;  // no plugin of ours uses it
    }
  }
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                          const IDimensionExpr&) noexcept override {
    return nullptr;
  }

  std::deque<Number> made_;
};

nvinfer1::Dims dims_of(const cn2_plugin_tensor& tensor) {
  nvinfer1::Dims dims{tensor.rank, {}};
  std::copy_n(tensor.sizes, 8, dims.d);
  return dims;
}

nvinfer1::PluginTensorDesc describe(const cn2_plugin_tensor& tensor) {
  return {dims_of(tensor), static_cast<nvinfer1::DataType>(tensor.type),
          static_cast<nvinfer1::TensorFormat>(tensor.format), 1.0f};
}

std::vector<nvinfer1::PluginTensorDesc> describe(const cn2_plugin_tensor* tensors, int32_t count) {
  std::vector<nvinfer1::PluginTensorDesc> all;
  std::transform(tensors, tensors + count, std::back_inserter(all),
                 [](const cn2_plugin_tensor& tensor) { return describe(tensor); });
  return all;
}

std::vector<nvinfer1::DynamicPluginTensorDesc> ranges(const cn2_plugin_tensor* tensors,
                                                      int32_t count) {
  std::vector<nvinfer1::DynamicPluginTensorDesc> all;
  for (const nvinfer1::PluginTensorDesc& one : describe(tensors, count)) {
    all.push_back({one, one.dims, one.dims, one.dims});
  }
  return all;
}

template <typename Capability>
Capability& capability(void* plugin, nvinfer1::PluginCapabilityType type) {
  return *static_cast<Capability*>(static_cast<IPluginV3*>(plugin)->getCapabilityInterface(type));
}

nvinfer1::IPluginV3OneBuild& build(void* plugin) {
  return capability<nvinfer1::IPluginV3OneBuild>(plugin, nvinfer1::PluginCapabilityType::kBUILD);
}

nvinfer1::IPluginV3OneRuntime& runtime(void* plugin) {
  return capability<nvinfer1::IPluginV3OneRuntime>(plugin,
                                                   nvinfer1::PluginCapabilityType::kRUNTIME);
}

nvinfer1::IPluginCreatorV3One* creator(int32_t index) {
  static Logger logger;
  setLoggerFinder(&logger);
  int32_t count = 0;
  nvinfer1::IPluginCreatorInterface* const* all = getCreators(count);
  return index < count ? static_cast<nvinfer1::IPluginCreatorV3One*>(all[index]) : nullptr;
}

int64_t bytes_of(const cn2_plugin_tensor& tensor) {
  int64_t bytes = static_cast<nvinfer1::DataType>(tensor.type) == nvinfer1::DataType::kHALF ? 2 : 4;
  for (int32_t i = 0; i < tensor.rank; ++i) {
    bytes *= tensor.sizes[i];
  }
  return bytes;
}

}  // namespace

void* cn2_cuda_plugin_create(const char* name, const char* space, const cn2_plugin_field* fields,
                             int32_t count, int32_t phase) {
  std::vector<nvinfer1::PluginField> given;
  for (int32_t i = 0; i < count; ++i) {
    given.emplace_back(fields[i].name, fields[i].data,
                       static_cast<nvinfer1::PluginFieldType>(fields[i].type), fields[i].length);
  }
  const nvinfer1::PluginFieldCollection collection{count, given.data()};
  nvinfer1::IPluginCreatorV3One* one = nullptr;
  for (int32_t i = 0; (one = creator(i)) != nullptr; ++i) {
    if (one->getPluginName() == std::string(name) &&
        one->getPluginNamespace() == std::string(space)) {
      return one->createPlugin("node", &collection, static_cast<nvinfer1::TensorRTPhase>(phase));
    }
  }
  return nullptr;
}

void* cn2_cuda_plugin_clone(void* plugin) {
  return static_cast<IPluginV3*>(plugin)->clone();
}

void cn2_cuda_plugin_destroy(void* plugin) {
  delete static_cast<IPluginV3*>(plugin);
}

const char* cn2_cuda_plugin_creator(int32_t index) {
  static std::string text;
  nvinfer1::IPluginCreatorV3One* one = creator(index);
  if (one == nullptr) {
    return nullptr;
  }
  text = std::string(one->getPluginName()) + " " + one->getPluginVersion() + " " +
         one->getPluginNamespace();
  const nvinfer1::PluginFieldCollection& names = *one->getFieldNames();
  for (int32_t i = 0; i < names.nbFields; ++i) {
    (text += "\n") += names.fields[i].name;
  }
  return text.c_str();
}

int32_t cn2_cuda_plugin_fields(void* plugin, cn2_plugin_field* fields, int32_t capacity) {
  const nvinfer1::PluginFieldCollection& stored = *runtime(plugin).getFieldsToSerialize();
  for (int32_t i = 0; i < std::min(stored.nbFields, capacity); ++i) {
    const nvinfer1::PluginField& one = stored.fields[i];
    fields[i] = {one.name, one.data, static_cast<int32_t>(one.type), one.length};
  }
  return stored.nbFields;
}

int32_t cn2_cuda_plugin_count_outputs(void* plugin) {
  return build(plugin).getNbOutputs();
}

int32_t cn2_cuda_plugin_supports(void* plugin, int32_t place, const cn2_plugin_tensor* tensors,
                                 int32_t inputs, int32_t outputs) {
  const auto all = ranges(tensors, inputs + outputs);
  return build(plugin).supportsFormatCombination(place, all.data(), inputs, outputs) ? 1 : 0;
}

int32_t cn2_cuda_plugin_infer(void* plugin, const cn2_plugin_tensor* inputs, int32_t input_count,
                              cn2_plugin_tensor* outputs, int32_t output_count) {
  Numbers numbers;
  std::vector<nvinfer1::DataType> types;
  std::vector<nvinfer1::DimsExprs> shapes;
  for (int32_t i = 0; i < input_count; ++i) {
    types.push_back(static_cast<nvinfer1::DataType>(inputs[i].type));
    shapes.push_back({inputs[i].rank, {}});
    for (int32_t j = 0; j < inputs[i].rank; ++j) {
      shapes.back().d[j] = numbers.make(inputs[i].sizes[j]);
    }
  }
  std::vector<nvinfer1::DataType> made_types(static_cast<size_t>(output_count));
  std::vector<nvinfer1::DimsExprs> made(static_cast<size_t>(output_count));
  const int32_t failed =
      build(plugin).getOutputDataTypes(made_types.data(), output_count, types.data(), input_count) |
      build(plugin).getOutputShapes(shapes.data(), input_count, nullptr, 0, made.data(),
                                    output_count, numbers);
  for (int32_t i = 0; failed == 0 && i < output_count; ++i) {
    const auto& shape = made[static_cast<size_t>(i)];
    outputs[i] = {
        static_cast<int32_t>(made_types[static_cast<size_t>(i)]), 0, shape.nbDims, {}, {}};
    for (int32_t j = 0; j < shape.nbDims; ++j) {
      outputs[i].sizes[j] = value_of(*shape.d[j]);
    }
  }
  return failed;
}

int32_t cn2_cuda_plugin_configure(void* plugin, const cn2_plugin_tensor* inputs,
                                  int32_t input_count) {
  return build(plugin).configurePlugin(ranges(inputs, input_count).data(), input_count, nullptr, 0);
}

int64_t cn2_cuda_plugin_workspace(void* plugin, const cn2_plugin_tensor* inputs,
                                  int32_t input_count) {
  return static_cast<int64_t>(
      build(plugin).getWorkspaceSize(ranges(inputs, input_count).data(), input_count, nullptr, 0));
}

int32_t cn2_cuda_plugin_run(void* plugin, const cn2_plugin_tensor* inputs, int32_t input_count,
                            const cn2_plugin_tensor* outputs, int32_t output_count) {
  const std::unique_ptr<IPluginV3> attached(runtime(plugin).attachToContext(nullptr));
  const auto in = describe(inputs, input_count);
  const auto out = describe(outputs, output_count);
  cn2::testing::DeviceArrays arrays;
  std::vector<const void*> data;
  std::vector<void*> results;
  for (int32_t i = 0; i < input_count; ++i) {
    data.push_back(arrays.in(static_cast<const char*>(inputs[i].data),
                             static_cast<size_t>(bytes_of(inputs[i]))));
  }
  for (int32_t i = 0; i < output_count; ++i) {
    results.push_back(
        arrays.out(static_cast<char*>(outputs[i].data), static_cast<size_t>(bytes_of(outputs[i]))));
  }
  void* workspace =
      arrays.workspace(static_cast<size_t>(cn2_cuda_plugin_workspace(plugin, inputs, input_count)));
  nvinfer1::IPluginV3OneRuntime& attached_runtime = runtime(attached.get());
  return arrays.run([&](cudaStream_t stream) {
    const int32_t failed =
        attached_runtime.onShapeChange(in.data(), input_count, out.data(), output_count) != 0
            ? 1
            : attached_runtime.enqueue(in.data(), out.data(), data.data(), results.data(),
                                       workspace, stream);
    return failed == 0 ? cudaSuccess : cudaErrorLaunchFailure;
  });
}

const char* cn2_cuda_plugin_take_log() {
  static std::string taken;
  taken = std::exchange(logged, {});
  return taken.c_str();
}
