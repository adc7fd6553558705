// ONNX Runtime that says it has CUDA: the library that $CN2_FAKE_ONNXRUNTIME names, on the CPU, whose
// CUDA provider takes its options and whose device memory is the host's, as fake_libcuda's is.
// $CN2_FAKE_ONNXRUNTIME_FAILS names the function of these that fails.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cstdlib>
#include <cstring>
#include <string>

namespace {

std::string options;    // of the CUDA provider, "key=value "
long device_tensors;    // that were made
OrtMemoryInfo* device;  // the only one
const OrtApi* real;

OrtStatus* outcome(const char* name) {
  const char* asked = std::getenv("CN2_FAKE_ONNXRUNTIME_FAILS");
  return asked != nullptr && std::strcmp(asked, name) == 0
             ? real->CreateStatus(ORT_FAIL, "fake: no CUDA\nhere")
             : nullptr;
}

OrtStatus* ORT_API_CALL create_options(OrtCUDAProviderOptionsV2** made) noexcept {
  *made = reinterpret_cast<OrtCUDAProviderOptionsV2*>(&options);
  return outcome("create");
}

OrtStatus* ORT_API_CALL update_options(OrtCUDAProviderOptionsV2*, const char* const* keys,
                                       const char* const* values, size_t count) noexcept {
  for (size_t i = 0; i < count; ++i) {
    options += std::string(keys[i]) + "=" + values[i] + " ";
  }
  return outcome("update");
}

void ORT_API_CALL release_options(OrtCUDAProviderOptionsV2*) noexcept {}

OrtStatus* ORT_API_CALL append(OrtSessionOptions*, const OrtCUDAProviderOptionsV2*) noexcept {
  return outcome("append");
}

OrtStatus* ORT_API_CALL create_memory_info(const char* name, OrtAllocatorType type, int number,
                                           OrtMemType kind, OrtMemoryInfo** made) noexcept {
  const bool is_cuda = std::strcmp(name, "Cuda") == 0 && number == 0;
  OrtStatus* status = real->CreateMemoryInfo(is_cuda ? "Cpu" : name, type, number, kind, made);
  device = *made;
  return status;
}

OrtStatus* ORT_API_CALL create_tensor(const OrtMemoryInfo* where, void* data, size_t bytes,
                                      const int64_t* shape, size_t count,
                                      ONNXTensorElementDataType type, OrtValue** made) noexcept {
  device_tensors += where == device ? 1 : 0;
  return real->CreateTensorWithDataAsOrtValue(where, data, bytes, shape, count, type, made);
}

const OrtApiBase* real_base() {
  void* library = dlopen(std::getenv("CN2_FAKE_ONNXRUNTIME"), RTLD_NOW | RTLD_LOCAL);
  using Get = const OrtApiBase*(ORT_API_CALL*)();
  return reinterpret_cast<Get>(dlsym(library, "OrtGetApiBase"))();
}

const OrtApi* ORT_API_CALL get_api(uint32_t version) noexcept {
  static OrtApi api;
  real = real_base()->GetApi(version);
  api = *real;  // it is at least as new as the header, and its table as long
  api.CreateCUDAProviderOptions = create_options;
  api.UpdateCUDAProviderOptions = update_options;
  api.ReleaseCUDAProviderOptions = release_options;
  api.SessionOptionsAppendExecutionProvider_CUDA_V2 = append;
  api.CreateMemoryInfo = create_memory_info;
  api.CreateTensorWithDataAsOrtValue = create_tensor;
  return &api;
}

const char* ORT_API_CALL version() noexcept {
  return real_base()->GetVersionString();
}

}  // namespace

extern "C" {

const OrtApiBase* ORT_API_CALL OrtGetApiBase() noexcept {
  static const OrtApiBase base = {get_api, version};
  return &base;
}

const char* fake_onnxruntime_options() {
  return options.c_str();
}

long fake_onnxruntime_device_tensors() {
  return device_tensors;
}

}  // extern "C"
