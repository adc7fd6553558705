#include "tensorrt/engine.h"

#include <algorithm>
#include <filesystem>

#include "beside.h"
#include "contract.h"
#include "error.h"
#include "log.h"
#include "mapped_file.h"
#include "tensorrt/library.h"
#include "tensorrt/run.h"

namespace cn2 {
namespace {

constexpr const char* kPlugins = "libcn2_trt_plugins.so";

void write_log(int32_t level, const char* message) {
  if (!logs(level)) {
    return;
  }
  try {
    log(level, text("tensorrt: ", shorten(message)));
  } catch (...) {
    log(CN2_LOG_ERROR, "tensorrt: an error, and no memory to tell which");
  }
}

// The plugin library beside libcn2; empty: there is none, and this engine may do without.
std::string find_plugins(const std::string& path, const Manifest& manifest) {
  const std::filesystem::path found = own_folder() / kPlugins;
  std::error_code error;
  if (std::filesystem::is_regular_file(found, error)) {
    return found;
  }
  if (manifest.fused_ops) {
    fail(CN2_UNAVAILABLE, path, ": its fused operators need ", kPlugins, " beside libcn2 (",
         found.native(),
         "), which is not there; build libcn2 where nvcc is, or export the model "
         "with --ops standard");
  }
  log(CN2_LOG_DEBUG, text(kPlugins, ": not beside libcn2"));
  return "";
}

std::string type_name(int32_t type) {
  switch (type) {
    case CN2_TENSORRT_UINT8:
      return "uint8";
    case CN2_TENSORRT_INT32:
      return "int32";
    case CN2_TENSORRT_FLOAT:
      return "float";
    default:
      return text("type ", type);
  }
}

Port describe(const cn2_tensorrt_tensor& tensor) {
  const int32_t count = std::clamp(tensor.shape.count, 0, CN2_TENSORRT_MAX_DIMENSIONS);
  return {tensor.name,
          type_name(tensor.type) + (tensor.on_device != 0 ? "" : " on the host"),
          {tensor.shape.sides, tensor.shape.sides + count}};
}

// Check the engine's inputs and outputs; whether the threshold is one of them.
bool check_graph(const TensorrtShared& shared) {
  std::vector<Port> inputs;
  std::vector<Port> outputs;
  bool takes_threshold = false;
  for (int32_t i = 0; i < shared.module.tensor_count(shared.engine); ++i) {
    cn2_tensorrt_tensor tensor{};
    shared.module.tensor(shared.engine, i, &tensor);
    Port port = describe(tensor);
    if (port.name == kInputNames[2] && port.type == "float" && port.shape.empty()) {
      takes_threshold = true;
      continue;
    }
    (tensor.is_input != 0 ? inputs : outputs).push_back(std::move(port));
  }
  check_contract(inputs, outputs, shared.manifest, shared.path);
  return takes_threshold;
}

class TensorrtEngine final : public Engine {
 public:
  TensorrtEngine(std::unique_ptr<TensorrtShared> shared, std::string description)
      : shared_(std::move(shared)), description_(std::move(description)) {}

  std::unique_ptr<EngineRun> create_run() const override {
    return std::make_unique<TensorrtRun>(*shared_);
  }
  int32_t batch_for(Size canvas, size_t waiting) const override {
    return choose_batch(shared_->profiles, canvas, static_cast<int64_t>(waiting));
  }
  std::string description() const override { return description_; }
  std::optional<int> cuda_device() const override { return shared_->device; }

 private:
  std::unique_ptr<TensorrtShared> shared_;
  std::string description_;
};

int choose_device(const std::string& path, const EngineOptions& options) {
  if (options.device_given && !options.cuda_device) {
    fail(CN2_UNAVAILABLE, path,
         ": an engine runs on a CUDA device, and device 'cpu' was asked "
         "for; open the .onnx file");
  }
  return options.cuda_device.value_or(0);
}

void deserialize(TensorrtShared& shared, const TensorrtLibrary& library,
                 const EngineSidecar& sidecar) {
  const std::string plugins = find_plugins(shared.path, shared.manifest);
  const MappedFile plan(shared.path);
  const cn2_tensorrt_request request = {library.handle,
                                        plugins.empty() ? nullptr : plugins.c_str(),
                                        plan.bytes().data(),
                                        plan.bytes().size(),
                                        sidecar.is_version_compatible,
                                        write_log};
  cn2_tensorrt_why why{};
  shared.engine = shared.module.open(&request, &why);
  if (shared.engine == nullptr && why.is_plugins != 0) {
    fail(CN2_UNAVAILABLE, shared.path, ": ", shared.name, " cannot load ", plugins, " (",
         shorten(why.text), "); torn, or not for this machine: install libcn2 again");
  }
  if (shared.engine == nullptr) {
    fail(CN2_MODEL_ERROR, shared.path, ": ", shared.name, " cannot load it (", shorten(why.text),
         "); an engine runs where TensorRT has the version and the GPU that it was built for");
  }
}

}  // namespace

std::unique_ptr<Engine> open_tensorrt_engine(const std::string& path, const Manifest& manifest,
                                             const EngineOptions& options) {
  const int device = choose_device(path, options);
  const EngineSidecar sidecar = read_engine_sidecar(path);
  cuda::probe(device);  // without a driver some versions return objects that are none
  const TensorrtLibrary library = load_tensorrt(options.runtime_path, sidecar);
  const cn2_tensorrt_module& module = load_tensorrt_module(library);
  auto shared = std::make_unique<TensorrtShared>(path, name_of(library), manifest, device, module);
  const cuda::Current current(shared->context);
  deserialize(*shared, library, sidecar);
  shared->takes_threshold = check_graph(*shared);
  shared->profiles = read_profiles(module, shared->engine, path);
  shared->kernels = find_cuda_module();
  const std::string description =
      text(library.is_rtx ? "tensorrt-rtx " : "tensorrt ", library.version, " on cuda:", device,
           ", ", manifest.fused_ops ? "fused" : "standard", " operators");
  return std::make_unique<TensorrtEngine>(std::move(shared), description);
}

}  // namespace cn2
