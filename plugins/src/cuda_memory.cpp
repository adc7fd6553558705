#include "cuda_memory.h"

#include <dlfcn.h>

#include "error.h"

namespace cn2 {
namespace {

// The few types and functions of NVIDIA's driver interface that are needed, as its documentation
// has them (cuda.h, "CUDA Driver API"); no header of it is used.
using Result = int;  // 0: success
using Device = int;
using ContextHandle = void*;
using DevicePointer = unsigned long long;

constexpr Result kOutOfMemory = 2;
constexpr unsigned kHostMemory = 1;
constexpr unsigned kDeviceMemory = 2;

// CUDA_MEMCPY2D
struct Copy2D {
  size_t source_x, source_y;
  unsigned source_kind;
  const void* source_host;
  DevicePointer source_device;
  void* source_array;
  size_t source_pitch;
  size_t target_x, target_y;
  unsigned target_kind;
  void* target_host;
  DevicePointer target_device;
  void* target_array;
  size_t target_pitch;
  size_t width_bytes, height;
};

struct Driver {
  void* library;
  Result (*init)(unsigned);
  Result (*get_device)(Device*, int);
  Result (*retain)(ContextHandle*, Device);
  Result (*release)(Device);
  Result (*push)(ContextHandle);
  Result (*pop)(ContextHandle*);
  Result (*copy)(const Copy2D*);
};

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) {
    fail(CN2_UNAVAILABLE, "libcuda.so.1: expected NVIDIA's driver, found no ", name);
  }
}

Driver load_driver() {
  Driver driver{};
  driver.library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver.library == nullptr) {
    const char* reason = dlerror();
    fail(CN2_UNAVAILABLE, "CUDA memory needs NVIDIA's driver (",
         reason == nullptr ? "no reason given" : shorten(reason), ")");
  }
  find(driver.library, "cuInit", driver.init);
  find(driver.library, "cuDeviceGet", driver.get_device);
  find(driver.library, "cuDevicePrimaryCtxRetain", driver.retain);
  find(driver.library, "cuDevicePrimaryCtxRelease_v2", driver.release);
  find(driver.library, "cuCtxPushCurrent_v2", driver.push);
  find(driver.library, "cuCtxPopCurrent_v2", driver.pop);
  find(driver.library, "cuMemcpy2D_v2", driver.copy);
  return driver;
}

void check(Result result, const char* what, cn2_status status) {
  if (result != 0) {
    fail(result == kOutOfMemory ? CN2_OUT_OF_MEMORY : status, what, ": CUDA error ", result);
  }
}

// The device's primary context, which ONNX Runtime uses too, current on this thread.
class Current {
 public:
  Current(const Driver& driver, int number) : driver_(driver) {
    check(driver.init(0), "cuInit", CN2_UNAVAILABLE);
    check(driver.get_device(&device_, number), "cuDeviceGet", CN2_UNAVAILABLE);
    ContextHandle context = nullptr;
    check(driver.retain(&context, device_), "cuDevicePrimaryCtxRetain", CN2_UNAVAILABLE);
    if (const Result result = driver.push(context); result != 0) {
      driver.release(device_);
      check(result, "cuCtxPushCurrent", CN2_UNAVAILABLE);
    }
  }
  ~Current() {
    ContextHandle context = nullptr;
    driver_.pop(&context);
    driver_.release(device_);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  const Driver& driver_;
  Device device_ = 0;
};

void copy_plane(const Driver& driver, const uint8_t* source, size_t pitch, size_t row, size_t rows,
                uint8_t* target) {
  Copy2D copy{};
  copy.source_kind = kDeviceMemory;
  copy.source_device = reinterpret_cast<uintptr_t>(source);
  copy.source_pitch = pitch;
  copy.target_kind = kHostMemory;
  copy.target_host = target;
  copy.target_pitch = row;
  copy.width_bytes = row;
  copy.height = rows;
  check(driver.copy(&copy), "images: the pointer is not of this CUDA device", CN2_INVALID_ARGUMENT);
}

}  // namespace

Pixels CudaCopier::to_host(const Pixels& picture, int device) {
  static const Driver driver = load_driver();
  const size_t row = picture.row_bytes();
  const auto rows = static_cast<size_t>(picture.size.height);
  const bool planar = picture.format == CN2_NV12;
  host_.resize(row * rows + (planar ? row * (rows / 2) : 0));
  const Current current(driver, device);
  copy_plane(driver, picture.data, picture.pitch, row, rows, host_.data());
  Pixels host = picture;
  host.memory = CN2_HOST;
  host.data = host_.data();
  host.pitch = row;
  if (planar) {
    copy_plane(driver, picture.chroma, picture.chroma_pitch, row, rows / 2,
               host_.data() + row * rows);
    host.chroma = host_.data() + row * rows;
    host.chroma_pitch = row;
  }
  return host;
}

}  // namespace cn2
