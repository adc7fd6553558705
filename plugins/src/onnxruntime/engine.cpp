#include "onnxruntime/engine.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>

#include "contract.h"
#include "error.h"
#include "log.h"
#include "onnxruntime/device.h"
#include "onnxruntime/graph.h"
#include "onnxruntime/session.h"

namespace cn2 {
namespace {

// What all contexts of an engine share; ONNX Runtime runs a session from any number of threads.
struct Shared {
  OrtParts parts;
  std::string path;
  std::string device;
  std::optional<int> cuda_device;
  bool takes_threshold;
};

class OrtRun final : public DirectRun {
 public:
  explicit OrtRun(const Shared& shared)
      : shared_(shared),
        api_(shared.parts.api),
        threshold_(api_.ReleaseValue),
        images_(api_.ReleaseValue),
        sizes_(api_.ReleaseValue),
        outputs_{Value(api_.ReleaseValue), Value(api_.ReleaseValue), Value(api_.ReleaseValue),
                 Value(api_.ReleaseValue)} {
    if (const cn2_cuda_module* kernels = shared.cuda_device ? find_cuda_module() : nullptr) {
      device_.emplace(*kernels, *shared.cuda_device);
    }
  }

  bool takes_device_pictures() const override { return device_.has_value(); }
  void check_device_picture(const Pixels& picture, Name what) const override {
    device_->check(picture, what);
  }

 protected:
  EngineOutput infer(const EngineInput& input) override {
    run(input);
    EngineOutput output;
    output.rows = read_shapes(input.batch);
    output.num_detections = data<int32_t>(0);
    output.boxes = data<float>(1);
    output.scores = data<float>(2);
    output.classes = data<int32_t>(3);
    return output;
  }

 private:
  using Value = OrtHandle<OrtValue>;

  void run(const EngineInput& input) {
    const bool on_device = input.canvases == nullptr;
    const void* canvases = on_device ? device_->fill(input) : input.canvases;
    bind(images_, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, canvases, sizeof(uint8_t),
         std::array<int64_t, 4>{input.batch, input.height, input.width, 3},
         on_device ? shared_.parts.device : shared_.parts.host);
    bind(sizes_, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, input.picture_sizes, sizeof(int32_t),
         std::array<int64_t, 2>{input.batch, 2}, shared_.parts.host);
    const bool with_threshold = input.score_threshold && shared_.takes_threshold;
    threshold_value_ = input.score_threshold.value_or(0.0F);
    bind(threshold_, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &threshold_value_, sizeof(float),
         std::array<int64_t, 0>{}, shared_.parts.host);
    const std::array<const OrtValue*, 3> inputs = {images_.get(), sizes_.get(), threshold_.get()};
    std::array<OrtValue*, kOutputNames.size()> outputs{};
    OrtStatus* status = api_.Run(shared_.parts.session.get(), shared_.parts.run_options.get(),
                                 kInputNames.data(), inputs.data(), with_threshold ? 3 : 2,
                                 kOutputNames.data(), outputs.size(), outputs.data());
    for (size_t index = 0; index < outputs.size(); ++index) {
      *outputs_[index].out() = outputs[index];
    }
    check_ort(api_, status, CN2_INFERENCE_ERROR, shared_.path,
              ": ONNX Runtime failed on images of (", input.batch, ", ", input.height, ", ",
              input.width, ", 3) on ", shared_.device);
  }

  // Make a tensor of the caller's memory.
  template <class Shape>
  void bind(Value& value, ONNXTensorElementDataType type, const void* memory, size_t item,
            const Shape& shape, const OrtHandle<OrtMemoryInfo>& where) {
    size_t bytes = item;
    for (const int64_t side : shape) {
      bytes *= static_cast<size_t>(side);
    }
    check_ort(api_,
              api_.CreateTensorWithDataAsOrtValue(where.get(), const_cast<void*>(memory), bytes,
                                                  shape.data(), shape.size(), type, value.out()),
              CN2_INFERENCE_ERROR, shared_.path, ": ONNX Runtime takes no tensor");
  }

  // D; throws unless the outputs are (B), (B, D, 4), (B, D), (B, D).
  int32_t read_shapes(int64_t batch) const {
    std::array<Dimensions, kOutputNames.size()> shapes{};
    for (size_t index = 0; index < shapes.size(); ++index) {
      shapes[index] = dimensions(index);
    }
    const int64_t rows = shapes[2].count == 2 ? shapes[2].sides[1] : 0;
    const std::array<Dimensions, kOutputNames.size()> wanted = {
        Dimensions{1, {batch}}, {3, {batch, rows, 4}}, {2, {batch, rows}}, {2, {batch, rows}}};
    if (shapes != wanted || rows < 0 || rows > INT32_MAX) {
      fail(CN2_MODEL_ERROR, shared_.path, ": expected outputs of shapes ", describe(wanted),
           ", got ", describe(shapes), "; export the model again");
    }
    return static_cast<int32_t>(rows);
  }

  struct Dimensions {
    size_t count = 0;
    std::array<int64_t, 4> sides{};
    bool operator==(const Dimensions&) const = default;
  };

  Dimensions dimensions(size_t index) const {
    OrtHandle<OrtTensorTypeAndShapeInfo> info(api_.ReleaseTensorTypeAndShapeInfo);
    check(api_.GetTensorTypeAndShape(outputs_[index].get(), info.out()));
    Dimensions result;
    check(api_.GetDimensionsCount(info.get(), &result.count));
    check(api_.GetDimensions(info.get(), result.sides.data(), std::min<size_t>(result.count, 4)));
    return result;
  }

  static std::string describe(std::span<const Dimensions> shapes) {
    std::string all;
    for (const Dimensions& shape : shapes) {
      all += all.empty() ? "(" : ", (";
      for (size_t i = 0; i < std::min<size_t>(shape.count, 4); ++i) {
        all += text(i == 0 ? "" : ", ", shape.sides[i]);
      }
      all += shape.count > 4 ? ", …)" : ")";
    }
    return all;
  }

  template <class T>
  const T* data(size_t index) const {
    void* memory = nullptr;
    check(api_.GetTensorMutableData(outputs_[index].get(), &memory));
    return static_cast<const T*>(memory);
  }

  void check(OrtStatus* status) const {
    check_ort(api_, status, CN2_INFERENCE_ERROR, shared_.path, ": ONNX Runtime gives no result");
  }

  const Shared& shared_;
  const OrtApi& api_;
  std::optional<OrtDevice> device_{};  // where libcn2_cuda is and the model runs on CUDA
  float threshold_value_ = 0;
  Value threshold_, images_, sizes_;
  std::array<Value, kOutputNames.size()> outputs_;
};

class OrtEngine final : public Engine {
 public:
  OrtEngine(Shared shared, const Manifest& manifest, const EngineOptions& options)
      : shared_(std::move(shared)), manifest_(manifest) {
    const bool fused = uses_kernels(manifest, options);
    description_ = text("onnxruntime ", shared_.parts.library.version, " on ", shared_.device, ", ",
                        fused ? "fused" : "standard", " operators");
  }

  std::unique_ptr<EngineRun> create_run() const override {
    return std::make_unique<OrtRun>(shared_);
  }
  int32_t batch_for(Size, size_t waiting) const override { return any_batch(manifest_, waiting); }
  std::string description() const override { return description_; }
  std::optional<int> cuda_device() const override { return shared_.cuda_device; }

 private:
  Shared shared_;
  Manifest manifest_;
  std::string description_;
};

}  // namespace

std::unique_ptr<Engine> open_onnxruntime_engine(const std::string& path, const Manifest& manifest,
                                                const EngineOptions& options) {
  OrtParts parts = open_session(path, manifest, options);
  check_graph(parts, manifest, path);
  const bool with_threshold = takes_threshold(parts);
  const std::string device = options.cuda_device ? text("cuda:", *options.cuda_device) : "cpu";
  return std::make_unique<OrtEngine>(
      Shared{std::move(parts), path, device, options.cuda_device, with_threshold}, manifest,
      options);
}

}  // namespace cn2
