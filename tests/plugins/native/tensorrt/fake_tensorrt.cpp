// TensorRT for tests, compiled against the headers of either version. It "runs" plans like
//
//     fake plan -1 -1 -1 2 threshold plugins host_code profile 1 4 64 128 64 128 profile ...
//
// (batch, height and width of images, detections per picture; whether it takes a threshold, needs
// plugins, and brings code of its own; each profile's least and most batch, height, width) as the tests' tiny ONNX model
// computes: the whole picture (score 0.9, class 0), and a fixed box whose score is half the mean
// grey level / 255 (class 2). $CN2_FAKE_TENSORRT_FAILS names what is to fail,
// $CN2_FAKE_TENSORRT_VERSION is what getInferLibVersion returns. As TensorRT's, it keeps the first
// logger that it is given, and warns of another. A context that is changed while a run of it waits, or
// has a graph that is launched later, ends the process.
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "unused_methods.h"

#pragma GCC diagnostic ignored "-Woverloaded-virtual"

using namespace nvinfer1;

namespace {

constexpr int kSecondClass = 2;
constexpr float kSecondBox[] = {1, 2, 11, 22};

bool fails(const char* what) {
  const char* asked = std::getenv("CN2_FAKE_TENSORRT_FAILS");
  return asked != nullptr && std::strcmp(asked, what) == 0;
}

struct Box {
  int least[3], most[3];  // batch, height, width
};

struct Plan {
  int batch = 0, height = 0, width = 0, rows = 0;
  bool threshold = false, plugins = false, host_code = false, valid = false;
  std::vector<Box> profiles;
};

Plan parse(const void* data, size_t size) {
  std::istringstream text(std::string(static_cast<const char*>(data), size));
  std::string word;
  Plan plan;
  text >> word;
  plan.valid = word == "fake";
  text >> word >> plan.batch >> plan.height >> plan.width >> plan.rows;
  plan.valid = plan.valid && word == "plan" && text;
  while (text >> word) {
    if (word == "threshold") {
      plan.threshold = true;
    } else if (word == "plugins") {
      plan.plugins = true;
    } else if (word == "host_code") {
      plan.host_code = true;
    } else if (word == "profile") {
      Box box{};
      for (int i = 0; i < 3; ++i) {
        text >> box.least[i] >> box.most[i];
      }
      plan.profiles.push_back(box);
    }
  }
  return plan;
}

Dims dims(std::initializer_list<int64_t> sides) {
  Dims made{};
  for (const int64_t side : sides) {
    made.d[made.nbDims++] = side;
  }
  return made;
}

constexpr int64_t kMemory = 1000;  // bytes that a context works in

struct Context;

// One run, as a stream does it: what was bound when it was asked for.
struct Run {
  const Context& context;
  long changes;  // of the context, until then
  void* memory;
  Plan plan;
  int64_t batch, height, width;
  std::map<std::string, void*> addresses;
};

void check_unchanged(const Run& run);

using Launch = int (*)(void* stream, void (*)(void*), void*);
using Check = void (*)(const void* start, size_t bytes);

template <class Function>
Function find(const char* name) {
  return reinterpret_cast<Function>(dlsym(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL), name));
}

void compute(void* data) {
  const Run& run = *static_cast<const Run*>(data);
  static const auto check = find<Check>("fake_cuda_check");
  check_unchanged(run);
  check(run.memory, kMemory);
  for (const auto& [name, address] : run.addresses) {
    check(address, 1);
  }
  std::memset(run.memory, 1, kMemory);
  const auto at = [&](const char* name) { return run.addresses.at(name); };
  const auto* images = static_cast<const uint8_t*>(at("images"));
  const auto* sizes = static_cast<const int32_t*>(at("image_sizes"));
  const float threshold =
      run.plan.threshold ? *static_cast<const float*>(at("score_threshold")) : 0.0F;
  const auto canvas = static_cast<size_t>(run.height * run.width * 3);
  const auto rows = static_cast<size_t>(run.plan.rows);
  for (size_t picture = 0; picture < static_cast<size_t>(run.batch); ++picture) {
    float* boxes = static_cast<float*>(at("boxes")) + 4 * rows * picture;
    float* scores = static_cast<float*>(at("scores")) + rows * picture;
    int32_t* classes = static_cast<int32_t*>(at("classes")) + rows * picture;
    int32_t& count = static_cast<int32_t*>(at("num_detections"))[picture];
    std::fill_n(boxes, 4 * rows, 0.0F);
    std::fill_n(scores, rows, 0.0F);
    std::fill_n(classes, rows, 0);
    count = 0;
    double sum = 0;
    for (size_t i = 0; i < canvas; ++i) {
      sum += images[picture * canvas + i];
    }
    const float second = static_cast<float>(sum / static_cast<double>(canvas) * 0.5 / 255);
    const auto add = [&](float score, int32_t class_id, std::initializer_list<float> box) {
      if (score > threshold) {
        std::copy(box.begin(), box.end(), boxes + 4 * count);
        scores[count] = score;
        classes[count++] = class_id;
      }
    };
    const auto height = static_cast<float>(sizes[2 * picture]);
    const auto width = static_cast<float>(sizes[2 * picture + 1]);
    add(0.9F, 0, {0, 0, width, height});
    add(second, kSecondClass, {kSecondBox[0], kSecondBox[1], kSecondBox[2], kSecondBox[3]});
  }
  if (fails("output")) {
    static_cast<int32_t*>(at("classes"))[0] = 1000;
  }
}

ILogger* kept_logger = nullptr;

struct Engine;

struct Context final : IExecutionContext, apiv::UnusedVExecutionContext {
  explicit Context(const Engine& from) : engine(from) { mImpl = this; }

  void setErrorRecorder(IErrorRecorder* recorder) noexcept override {
    errors = recorder;
    errors->incRefCount();
  }
  bool setOptimizationProfileAsync(int32_t number, cudaStream_t) noexcept override;
  bool setInputShape(char const* name, Dims const& shape) noexcept override;
  Dims getTensorShape(char const* name) const noexcept override;
  bool setTensorAddress(char const* name, void* address) noexcept override {
    ++changes;
    return fail("address", name) && (addresses[name] = address) != nullptr;
  }
  void setDeviceMemoryV2(void* given, int64_t size) noexcept override {
    memory = size == kMemory ? given : nullptr;
  }
  bool enqueueV3(cudaStream_t stream) noexcept override;

  // True unless it is to fail.
  bool fail(const char* what, const char* about) noexcept {
    if (!fails(what)) {
      return true;
    }
    const std::string said = std::string("fake: ") + what + " of " + about + "\nfails";
    errors->reportError(ErrorCode::kINVALID_ARGUMENT, said.c_str());
    errors->reportError(ErrorCode::kINVALID_ARGUMENT, "fake: a second error");
    return false;
  }

  const Engine& engine;
  IErrorRecorder* errors = nullptr;
  int32_t profile = 0;
  Dims images{}, sizes{};
  void* memory = nullptr;
  long changes = 0;
  std::map<std::string, void*> addresses;
  std::vector<std::unique_ptr<Run>> runs;  // graphs may launch them again
};

void check_unchanged(const Run& run) {
  if (run.changes != run.context.changes) {
    std::fputs("fake: a context was changed before a run of it\n", stderr);
    std::abort();
  }
}

struct Engine final : ICudaEngine, apiv::UnusedVCudaEngine {
  explicit Engine(Plan from) : plan(std::move(from)) { mImpl = this; }

  std::vector<const char*> names() const {
    std::vector<const char*> all = {"images", "image_sizes", "num_detections",
                                    "boxes",  "scores",      "classes"};
    if (plan.threshold) {
      all.push_back("score_threshold");
    }
    return all;
  }
  int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(names().size()); }
  char const* getIOTensorName(int32_t index) const noexcept override {
    return names()[static_cast<size_t>(index)];
  }
  TensorIOMode getTensorIOMode(char const* name) const noexcept override {
    const std::string input = name;
    return input == "images" || input == "image_sizes" || input == "score_threshold"
               ? TensorIOMode::kINPUT
               : TensorIOMode::kOUTPUT;
  }
  DataType getTensorDataType(char const* name) const noexcept override {
    const std::string one = name;
    if (one == "images") {
      return fails("type") ? DataType::kHALF : DataType::kUINT8;
    }
    return one == "boxes" || one == "scores" || one == "score_threshold" ? DataType::kFLOAT
                                                                         : DataType::kINT32;
  }
  TensorLocation getTensorLocation(char const*) const noexcept override {
    return fails("location") ? TensorLocation::kHOST : TensorLocation::kDEVICE;
  }
  Dims getTensorShape(char const* name) const noexcept override {
    return shape_of(name, plan.batch, plan.height, plan.width);
  }
  Dims shape_of(const std::string& name, int64_t batch, int64_t height, int64_t width) const {
    return name == "images"            ? dims({batch, height, width, 3})
           : name == "image_sizes"     ? dims({batch, 2})
           : name == "score_threshold" ? Dims{}
           : name == "num_detections"  ? dims({batch})
           : name == "boxes" ? dims({batch, fails("shape") ? plan.rows + 1 : plan.rows, 4})
                             : dims({batch, plan.rows});
  }
  int32_t getNbOptimizationProfiles() const noexcept override {
    return static_cast<int32_t>(plan.profiles.size());
  }
  Dims getProfileShape(char const*, int32_t number,
                       OptProfileSelector which) const noexcept override {
    const Box& box = plan.profiles[static_cast<size_t>(number)];
    const int* side = which == OptProfileSelector::kMIN ? box.least : box.most;
    return dims({side[0], side[1], side[2], 3});
  }
  int64_t getDeviceMemorySizeV2() const noexcept override { return kMemory; }
  IExecutionContext* createExecutionContext(
      ExecutionContextAllocationStrategy strategy) noexcept override {
    if (fails("context") || strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED) {
      return nullptr;
    }
    kept_logger->log(ILogger::Severity::kVERBOSE, "fake: a context");
    return new Context(*this);
  }

  Plan plan;
};

bool Context::setOptimizationProfileAsync(int32_t number, cudaStream_t) noexcept {
  profile = number;
  ++changes;
  return fail("profile", std::to_string(number).c_str()) && number >= 0 &&
         static_cast<size_t>(number) < engine.plan.profiles.size();
}

bool Context::setInputShape(char const* name, Dims const& shape) noexcept {
  const Box& box = engine.plan.profiles[static_cast<size_t>(profile)];
  ++changes;
  bool inside = true;
  for (int i = 0; i < (shape.nbDims == 4 ? 3 : 1); ++i) {
    inside = inside && shape.d[i] >= box.least[i] && shape.d[i] <= box.most[i];
  }
  (std::string(name) == "images" ? images : sizes) = shape;
  return inside;
}

Dims Context::getTensorShape(char const* name) const noexcept {
  return engine.shape_of(name, images.d[0], images.d[1], images.d[2]);
}

bool Context::enqueueV3(cudaStream_t stream) noexcept {
  static const auto launch = find<Launch>("cuLaunchHostFunc");
  if (!fail("enqueue", "a run") || images.d[0] != sizes.d[0] || memory == nullptr) {
    return false;
  }
  runs.push_back(std::make_unique<Run>(
      Run{*this, changes, memory, engine.plan, images.d[0], images.d[1], images.d[2], addresses}));
  return launch != nullptr && launch(stream, compute, runs.back().get()) == 0;
}

struct Registry final : UnusedIPluginRegistry {
  PluginLibraryHandle loadLibrary(AsciiChar const* path) noexcept override {
    std::FILE* file = std::fopen(path, "rb");
    if (file == nullptr || fails("plugins")) {
      return nullptr;
    }
    std::fclose(file);
    loaded = true;
    return this;
  }

  bool loaded = false;
};

struct Runtime final : IRuntime, apiv::UnusedVRuntime {
  explicit Runtime(ILogger& target) : logger(target) { mImpl = this; }

  IPluginRegistry& getPluginRegistry() noexcept override { return registry; }
  void setEngineHostCodeAllowed(bool allowed) noexcept override { host_code = allowed; }
  ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept override {
    logger.log(ILogger::Severity::kINFO, "fake: deserializing");
    Plan plan = parse(blob, size);
    if (plan.host_code != host_code || !plan.valid || (plan.plugins && !registry.loaded)) {
      const char* why = plan.host_code != host_code
                            ? "fake: host code, or none, against the runtime"
                        : plan.valid ? "fake: no creator of PyramidRoIAlign"
                                     : "fake: no plan\nof ours";
      logger.log(ILogger::Severity::kERROR, why);
      return nullptr;
    }
    if (fails("nothing")) {
      logger.log(ILogger::Severity::kERROR, "fake: an error, yet it goes on");
    }
    return new Engine(std::move(plan));
  }

  ILogger& logger;
  Registry registry;
  bool host_code = false;
};

}  // namespace

extern "C" {

void* createInferRuntime_INTERNAL(void* logger, int32_t version) noexcept {
  auto& target = *static_cast<ILogger*>(logger);
  if (fails("runtime") || version != getInferLibVersion()) {
    target.log(ILogger::Severity::kERROR, "fake: no runtime");
    return nullptr;
  }
  if (kept_logger != nullptr && kept_logger != &target) {
    kept_logger->log(ILogger::Severity::kWARNING, "fake: another logger");
  }
  kept_logger = kept_logger == nullptr ? &target : kept_logger;
  return static_cast<IRuntime*>(new Runtime(*kept_logger));
}

int32_t getInferLibVersion() noexcept {
  const char* asked = std::getenv("CN2_FAKE_TENSORRT_VERSION");
  return asked == nullptr ? NV_TENSORRT_VERSION : std::atoi(asked);
}

}  // extern "C"
