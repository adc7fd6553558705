// ONNX Runtime's objects, released when they go out of scope, and its statuses as errors.
#pragma once

#include <onnxruntime_c_api.h>

#include <string>
#include <utility>

#include "error.h"

namespace cn2 {

// One object of ONNX Runtime, or none.
template <class T>
class OrtHandle {
 public:
  using Release = void(ORT_API_CALL*)(T*);

  explicit OrtHandle(Release release) : release_(release) {}
  OrtHandle(OrtHandle&& other) noexcept
      : release_(other.release_), object_(std::exchange(other.object_, nullptr)) {}
  OrtHandle& operator=(OrtHandle&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~OrtHandle() { reset(); }

  void reset() {
    if (object_ != nullptr) {
      release_(std::exchange(object_, nullptr));
    }
  }

  T* get() const { return object_; }

  // Where a function of ONNX Runtime writes a new object.
  T** out() {
    reset();
    return &object_;
  }

 private:
  Release release_;
  T* object_ = nullptr;
};

// What a failed call said, and whether memory was short. Releases the status.
struct OrtFailure {
  std::string reason;
  bool out_of_memory;
};

OrtFailure take_failure(const OrtApi& api, OrtStatus* status);

// Throw Error unless the call succeeded: `status`, or CN2_OUT_OF_MEMORY.
template <class... Parts>
void check_ort(const OrtApi& api, OrtStatus* result, cn2_status status, const Parts&... parts) {
  if (result == nullptr) {
    return;
  }
  const OrtFailure failure = take_failure(api, result);
  fail(failure.out_of_memory ? CN2_OUT_OF_MEMORY : status, parts..., " (", failure.reason, ")");
}

}  // namespace cn2
