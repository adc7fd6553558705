// ONNX Runtime's C interface for the operators of this folder: attributes, tensors, threads, errors.
#pragma once

#include <onnxruntime_c_api.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace cn2 {

// What is wrong with a node or its inputs, in one line: expected, got.
class OpError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A node's attributes.
class Attributes {
 public:
  Attributes(const OrtApi& api, const OrtKernelInfo* info) : api_(api), info_(info) {}

  // Each throws OpError where the attribute is missing or of another type.
  int64_t get_int(const char* name) const;
  float get_float(const char* name) const;
  std::vector<int64_t> get_ints(const char* name) const;
  std::vector<float> get_floats(const char* name) const;  // a missing one is empty

 private:
  void check(const char* name, OrtStatus* failure) const;

  const OrtApi& api_;
  const OrtKernelInfo* info_;
};

// A tensor that an operator was given.
struct Input {
  const void* data = nullptr;  // null: it was left out, or has no element
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::vector<int64_t> shape;

  const float* floats() const { return static_cast<const float*>(data); }
  const int32_t* ints() const { return static_cast<const int32_t*>(data); }
};

// One call of an operator.
class Context {
 public:
  Context(const OrtApi& api, OrtKernelContext* context) : api_(api), context_(context) {}

  size_t count_inputs() const;
  bool has_input(size_t index) const;
  Input get_input(size_t index) const;

  // Memory for a result.
  void* make_output(size_t index, const std::vector<int64_t>& shape) const;
  float* make_floats(size_t index, const std::vector<int64_t>& shape) const;
  int32_t* make_ints(size_t index, const std::vector<int64_t>& shape) const;

  // The CUDA provider's stream, a cudaStream_t.
  void* gpu_stream() const;

  // Run a kernel on ONNX Runtime's threads; throws OpError unless it returns kOk.
  template <typename Kernel>
  void run(const Kernel& kernel) const {
    Pool pool{api_, context_, nullptr};
    const Status status = kernel(ThreadPool{&Pool::run, &pool});
    check(status, pool.failure);
  }

 private:
  struct Pool {
    const OrtApi& api;
    const OrtKernelContext* context;
    OrtStatus* failure;
    static void run(void* pool, void (*task)(void* data, size_t index), size_t count, void* data);
  };

  void check(Status status, OrtStatus* failure) const;

  const OrtApi& api_;
  OrtKernelContext* context_;
};

// Throw OpError with the text of a status that is not null; releases it.
void throw_failure(const OrtApi& api, OrtStatus* failure);

// "float32 [2, 5, 4]"
std::string describe(const Input& input);

// Throw OpError unless an input is of this type and shape; -1 fits any size.
void expect(const char* name, const Input& input, ONNXTensorElementDataType type,
            const std::vector<int64_t>& shape);

}  // namespace cn2
