#include "context.h"

#include <memory>

namespace cn2 {
namespace {

constexpr auto kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kHalf = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
constexpr auto kInt32 = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;

std::string describe(ONNXTensorElementDataType type, const std::vector<int64_t>& shape) {
  std::string text = type == kFloat   ? "float32 ["
                     : type == kHalf  ? "float16 ["
                     : type == kInt32 ? "int32 ["
                                      : "type " + std::to_string(type) + " [";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i > 0 ? ", " : "") + (shape[i] < 0 ? "any" : std::to_string(shape[i]));
  }
  return text + "]";
}

}  // namespace

void throw_failure(const OrtApi& api, OrtStatus* failure) {
  if (failure != nullptr) {
    const std::string text = api.GetErrorMessage(failure);
    api.ReleaseStatus(failure);
    throw OpError(text);
  }
}

void Attributes::check(const char* name, OrtStatus* failure) const {
  try {
    throw_failure(api_, failure);
  } catch (const OpError& error) {
    throw OpError("attribute " + std::string(name) + ": " + error.what());
  }
}

int64_t Attributes::get_int(const char* name) const {
  int64_t value = 0;
  check(name, api_.KernelInfoGetAttribute_int64(info_, name, &value));
  return value;
}

float Attributes::get_float(const char* name) const {
  float value = 0;
  check(name, api_.KernelInfoGetAttribute_float(info_, name, &value));
  return value;
}

std::vector<int64_t> Attributes::get_ints(const char* name) const {
  size_t size = 0;
  check(name, api_.KernelInfoGetAttributeArray_int64(info_, name, nullptr, &size));
  std::vector<int64_t> values(size);
  check(name, api_.KernelInfoGetAttributeArray_int64(info_, name, values.data(), &size));
  return values;
}

std::vector<float> Attributes::get_floats(const char* name) const {
  size_t size = 0;
  if (OrtStatus* missing = api_.KernelInfoGetAttributeArray_float(info_, name, nullptr, &size)) {
    api_.ReleaseStatus(missing);
    return {};
  }
  std::vector<float> values(size);
  check(name, api_.KernelInfoGetAttributeArray_float(info_, name, values.data(), &size));
  return values;
}

size_t Context::count_inputs() const {
  size_t count = 0;
  throw_failure(api_, api_.KernelContext_GetInputCount(context_, &count));
  return count;
}

bool Context::has_input(size_t index) const {
  const OrtValue* value = nullptr;
  if (index < count_inputs()) {
    throw_failure(api_, api_.KernelContext_GetInput(context_, index, &value));
  }
  return value != nullptr;
}

Input Context::get_input(size_t index) const {
  const OrtValue* value = nullptr;
  throw_failure(api_, api_.KernelContext_GetInput(context_, index, &value));
  OrtTensorTypeAndShapeInfo* info = nullptr;
  throw_failure(api_, api_.GetTensorTypeAndShape(value, &info));
  const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(api_.ReleaseTensorTypeAndShapeInfo)>
      owner(info, api_.ReleaseTensorTypeAndShapeInfo);
  Input input;
  throw_failure(api_, api_.GetTensorElementType(info, &input.type));
  size_t rank = 0;
  throw_failure(api_, api_.GetDimensionsCount(info, &rank));
  input.shape.resize(rank);
  throw_failure(api_, api_.GetDimensions(info, input.shape.data(), rank));
  void* data = nullptr;  // the interface has no const form; nothing writes to it
  throw_failure(api_, api_.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  input.data = data;
  return input;
}

void* Context::make_output(size_t index, const std::vector<int64_t>& shape) const {
  OrtValue* value = nullptr;
  throw_failure(api_,
                api_.KernelContext_GetOutput(context_, index, shape.data(), shape.size(), &value));
  if (value == nullptr) {
    throw OpError("output " + std::to_string(index) + ": expected a name, got none");
  }
  void* data = nullptr;
  throw_failure(api_, api_.GetTensorMutableData(value, &data));
  return data;
}

float* Context::make_floats(size_t index, const std::vector<int64_t>& shape) const {
  return static_cast<float*>(make_output(index, shape));
}

int32_t* Context::make_ints(size_t index, const std::vector<int64_t>& shape) const {
  return static_cast<int32_t*>(make_output(index, shape));
}

void* Context::gpu_stream() const {
  void* stream = nullptr;
  throw_failure(api_, api_.KernelContext_GetGPUComputeStream(context_, &stream));
  return stream;
}

void Context::Pool::run(void* pool, void (*task)(void* data, size_t index), size_t count,
                        void* data) {
  Pool& self = *static_cast<Pool*>(pool);
  OrtStatus* failure = self.api.KernelContext_ParallelFor(self.context, task, count, count, data);
  if (self.failure == nullptr) {
    self.failure = failure;
  } else if (failure != nullptr) {
    self.api.ReleaseStatus(failure);
  }
}

void Context::check(Status status, OrtStatus* failure) const {
  throw_failure(api_, failure);
  if (status == Status::kOutOfMemory) {
    throw OpError("out of memory");
  }
  if (status != Status::kOk) {
    throw OpError("expected sizes and attributes as in docs/operators.md, got one out of range");
  }
}

std::string describe(const Input& input) {
  return describe(input.type, input.shape);
}

void expect(const char* name, const Input& input, ONNXTensorElementDataType type,
            const std::vector<int64_t>& shape) {
  bool fits = input.type == type && input.shape.size() == shape.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) {
    fits = shape[i] < 0 || shape[i] == input.shape[i];
  }
  if (!fits) {
    throw OpError(std::string(name) + ": expected " + describe(type, shape) + ", got " +
                  describe(input));
  }
}

}  // namespace cn2
