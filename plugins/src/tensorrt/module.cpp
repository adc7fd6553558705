// libcn2_tensorrt10 and 11: the functions of module.h over TensorRT's C++ interface.
#include "module.h"

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <algorithm>
#include <memory>
#include <new>

#include "messages.h"

using nvinfer1::Dims;

// What an engine needs, in the order in which it must not go.
struct cn2_tensorrt_engine {
  std::unique_ptr<nvinfer1::IRuntime> runtime;
  std::unique_ptr<nvinfer1::ICudaEngine> engine;
};

struct cn2_tensorrt_context {
  cn2::ErrorRecorder errors;  // of this context alone, whatever other threads do
  std::unique_ptr<nvinfer1::IExecutionContext> context;
};

namespace cn2 {
namespace {

using CreateRuntime = void* (*)(void* logger, int32_t version);
using LibraryVersion = int32_t (*)();

bool start_runtime(cn2_tensorrt_engine& made, const cn2_tensorrt_request& request,
                   cn2_tensorrt_why* why) {
  const auto create =
      reinterpret_cast<CreateRuntime>(dlsym(request.library, "createInferRuntime_INTERNAL"));
  const auto version =
      reinterpret_cast<LibraryVersion>(dlsym(request.library, "getInferLibVersion"));
  if (create == nullptr || version == nullptr) {
    return explain(why, "the library has no createInferRuntime_INTERNAL");
  }
  forget_errors();
  made.runtime.reset(
      static_cast<nvinfer1::IRuntime*>(create(&Logger::get(request.log), version())));
  if (made.runtime == nullptr) {
    return explain(why, first_error("createInferRuntime failed"));
  }
  return true;
}

bool load_plugins(cn2_tensorrt_engine& made, const char* path, cn2_tensorrt_why* why) {
  forget_errors();
  if (path != nullptr && made.runtime->getPluginRegistry().loadLibrary(path) == nullptr) {
    why->is_plugins = 1;
    return explain(why, first_error("the plugin library cannot be loaded"));
  }
  return true;
}

bool read_plan(cn2_tensorrt_engine& made, const cn2_tensorrt_request& request,
               cn2_tensorrt_why* why) {
  if (request.host_code != 0) {
    made.runtime->setEngineHostCodeAllowed(true);
  }
  forget_errors();
  made.engine.reset(made.runtime->deserializeCudaEngine(request.plan, request.plan_size));
  if (made.engine == nullptr) {
    return explain(why, first_error("deserializeCudaEngine failed"));
  }
  return true;
}

cn2_tensorrt_engine* open(const cn2_tensorrt_request* request, cn2_tensorrt_why* why) {
  std::unique_ptr<cn2_tensorrt_engine> made(new (std::nothrow) cn2_tensorrt_engine());
  if (made == nullptr) {
    explain(why, "out of memory");
    return nullptr;
  }
  const bool ready = start_runtime(*made, *request, why) &&
                     load_plugins(*made, request->plugins, why) && read_plan(*made, *request, why);
  return ready ? made.release() : nullptr;
}

void close(cn2_tensorrt_engine* engine) {
  delete engine;
}

void copy_shape(const Dims& dims, cn2_tensorrt_shape* shape) {
  *shape = {};
  shape->count = dims.nbDims;
  for (int32_t i = 0; i < std::min(dims.nbDims, int32_t{CN2_TENSORRT_MAX_DIMENSIONS}); ++i) {
    shape->sides[i] = dims.d[i];
  }
}

int32_t tensor_count(const cn2_tensorrt_engine* engine) {
  return engine->engine->getNbIOTensors();
}

void tensor(const cn2_tensorrt_engine* engine, int32_t index, cn2_tensorrt_tensor* tensor) {
  const nvinfer1::ICudaEngine& from = *engine->engine;
  tensor->name = from.getIOTensorName(index);
  tensor->is_input = from.getTensorIOMode(tensor->name) == nvinfer1::TensorIOMode::kINPUT;
  tensor->type = static_cast<int32_t>(from.getTensorDataType(tensor->name));
  tensor->on_device = from.getTensorLocation(tensor->name) == nvinfer1::TensorLocation::kDEVICE;
  copy_shape(from.getTensorShape(tensor->name), &tensor->shape);
}

int32_t profile_count(const cn2_tensorrt_engine* engine) {
  return engine->engine->getNbOptimizationProfiles();
}

void profile_shape(const cn2_tensorrt_engine* engine, int32_t profile, const char* tensor,
                   int32_t which, cn2_tensorrt_shape* shape) {
  copy_shape(engine->engine->getProfileShape(tensor, profile,
                                             static_cast<nvinfer1::OptProfileSelector>(which)),
             shape);
}

size_t memory_size(const cn2_tensorrt_engine* engine) {
  return static_cast<size_t>(std::max(int64_t{0}, engine->engine->getDeviceMemorySizeV2()));
}

cn2_tensorrt_context* create_context(cn2_tensorrt_engine* engine, void* memory, size_t memory_size,
                                     cn2_tensorrt_why* why) {
  std::unique_ptr<cn2_tensorrt_context> made(new (std::nothrow) cn2_tensorrt_context());
  forget_errors();
  if (made != nullptr) {
    made->context.reset(engine->engine->createExecutionContext(
        nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
  }
  if (made == nullptr || made->context == nullptr) {
    explain(why, first_error("createExecutionContext failed"));
    return nullptr;
  }
  made->context->setErrorRecorder(&made->errors);
  made->context->setDeviceMemoryV2(memory, static_cast<int64_t>(memory_size));
  return made.release();
}

void destroy_context(cn2_tensorrt_context* context) {
  delete context;
}

// 1 if a call on the context succeeded; else 0, and why.
int32_t outcome(cn2_tensorrt_context& context, bool succeeded, const char* call,
                cn2_tensorrt_why* why) {
  if (!succeeded) {
    explain(why, context.errors.first(call));
  }
  context.errors.clear();
  return succeeded ? 1 : 0;
}

int32_t set_profile(cn2_tensorrt_context* context, int32_t profile, void* stream,
                    cn2_tensorrt_why* why) {
  const bool done =
      context->context->setOptimizationProfileAsync(profile, static_cast<cudaStream_t>(stream));
  return outcome(*context, done, "setOptimizationProfileAsync failed", why);
}

int32_t set_shape(cn2_tensorrt_context* context, const char* tensor,
                  const cn2_tensorrt_shape* shape, cn2_tensorrt_why* why) {
  Dims dims{};
  dims.nbDims = shape->count;
  std::copy_n(shape->sides, shape->count, dims.d);
  const bool done = context->context->setInputShape(tensor, dims);
  return outcome(*context, done, "setInputShape failed", why);
}

int32_t set_address(cn2_tensorrt_context* context, const char* tensor, void* address,
                    cn2_tensorrt_why* why) {
  const bool done = context->context->setTensorAddress(tensor, address);
  return outcome(*context, done, "setTensorAddress failed", why);
}

void output_shape(const cn2_tensorrt_context* context, const char* tensor,
                  cn2_tensorrt_shape* shape) {
  copy_shape(context->context->getTensorShape(tensor), shape);
}

int32_t enqueue(cn2_tensorrt_context* context, void* stream, cn2_tensorrt_why* why) {
  const bool done = context->context->enqueueV3(static_cast<cudaStream_t>(stream));
  return outcome(*context, done, "enqueueV3 failed", why);
}

constexpr cn2_tensorrt_module kModule = {
    CN2_TENSORRT_MODULE_VERSION,
    NV_TENSORRT_MAJOR,
    open,
    close,
    tensor_count,
    tensor,
    profile_count,
    profile_shape,
    memory_size,
    create_context,
    destroy_context,
    set_profile,
    set_shape,
    set_address,
    output_shape,
    enqueue,
};

}  // namespace
}  // namespace cn2

extern "C" __attribute__((visibility("default"))) const cn2_tensorrt_module*
cn2_tensorrt_module_get(void) {
  return &cn2::kModule;
}
