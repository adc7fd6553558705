// NVIDIA's driver interface (libcuda.so.1), loaded when it is first needed; no header of it is used.
#pragma once

#include <cn2.h>

#include <cstddef>
#include <cstdint>

#include "error.h"

namespace cn2 {

// The types and functions that are needed, as NVIDIA's documentation has them (cuda.h, "CUDA Driver
// API"). A stream is what CUDA's runtime interface calls cudaStream_t.
namespace cuda {

using Result = int;  // 0: success
using Device = int;
using Pointer = unsigned long long;  // into device memory
using Handle = void*;                // of a context, stream, event or graph

constexpr Result kOutOfMemory = 2;
constexpr unsigned kHostMemory = 1;
constexpr unsigned kDeviceMemory = 2;
constexpr int kDeviceOfPointer = 9;  // CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
constexpr unsigned kNonBlockingStream = 1;
constexpr unsigned kCaptureOfThread = 1;  // other threads may allocate meanwhile

// CUDA_MEMCPY2D
struct Copy2D {
  size_t source_x, source_y;
  unsigned source_kind;
  const void* source_host;
  Pointer source_device;
  void* source_array;
  size_t source_pitch;
  size_t target_x, target_y;
  unsigned target_kind;
  void* target_host;
  Pointer target_device;
  void* target_array;
  size_t target_pitch;
  size_t width_bytes, height;
};

struct Driver {
  Result (*init)(unsigned);
  Result (*error_name)(Result, const char**);
  Result (*count_devices)(int*);
  Result (*get_device)(Device*, int);
  Result (*retain)(Handle*, Device);
  Result (*release)(Device);
  Result (*push)(Handle);
  Result (*pop)(Handle*);
  Result (*copy)(const Copy2D*);
  Result (*allocate)(Pointer*, size_t);
  Result (*free)(Pointer);
  Result (*allocate_host)(void**, size_t, unsigned);
  Result (*free_host)(void*);
  Result (*upload)(Pointer, const void*, size_t, Handle stream);
  Result (*set)(Pointer, unsigned char, size_t, Handle stream);
  Result (*get_attribute)(void* value, int attribute, Pointer);
  Result (*download)(void*, Pointer, size_t, Handle stream);
  Result (*create_stream)(Handle*, unsigned);
  Result (*destroy_stream)(Handle);
  Result (*synchronize)(Handle stream);
  Result (*create_event)(Handle*, unsigned);
  Result (*destroy_event)(Handle);
  Result (*record)(Handle event, Handle stream);
  Result (*await)(Handle event);
  Result (*wait)(Handle stream, Handle event, unsigned flags);
  Result (*elapsed)(float* ms, Handle start, Handle end);
  Result (*begin_capture)(Handle stream, unsigned mode);
  Result (*end_capture)(Handle stream, Handle* graph);
  Result (*instantiate)(Handle* executable, Handle graph, unsigned long long flags);
  Result (*launch_graph)(Handle executable, Handle stream);
  Result (*destroy_graph)(Handle graph);
  Result (*destroy_executable)(Handle executable);
};

// Throws Error (CN2_UNAVAILABLE): there is none on this machine, or one that is too old.
const Driver& driver();

// "CUDA error 2 (CUDA_ERROR_OUT_OF_MEMORY)"
std::string describe(Result result);

// Throw Error unless the call succeeded: `status`, or CN2_OUT_OF_MEMORY.
template <class... Parts>
void check(Result result, cn2_status status, const Parts&... what) {
  if (result != 0) {
    fail(result == kOutOfMemory ? CN2_OUT_OF_MEMORY : status, what..., ": ", describe(result));
  }
}

// Throws Error (CN2_UNAVAILABLE) unless the driver starts and has this device.
void probe(int device);

// Whether a pointer is into the memory of this device; a context must be current.
bool is_on_device(const void* pointer, int device);

// A device's primary context, which ONNX Runtime and TensorRT use too; it stays while this lives.
class PrimaryContext {
 public:
  // Throws Error (CN2_UNAVAILABLE).
  explicit PrimaryContext(int device);
  ~PrimaryContext();
  PrimaryContext(const PrimaryContext&) = delete;
  PrimaryContext& operator=(const PrimaryContext&) = delete;

  Handle get() const { return context_; }

 private:
  Device device_ = 0;
  Handle context_ = nullptr;
};

// Makes it current on this thread until it goes out of scope.
class Current {
 public:
  explicit Current(const PrimaryContext& context);  // throws Error (CN2_UNAVAILABLE)
  ~Current();
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
};

// For destructors: whether the context could be made current, and `release` was called in it. Where
// it cannot, as the device is lost, what is of it can only be leaked.
template <class Release>
bool release_in(const PrimaryContext& context, const Release& release) noexcept {
  try {
    const Current current(context);
    release();
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace cuda
}  // namespace cn2
