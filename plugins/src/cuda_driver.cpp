#include "cuda_driver.h"

#include <dlfcn.h>

namespace cn2::cuda {
namespace {

constexpr const char* kLibrary = "libcuda.so.1";

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) {
    fail(CN2_UNAVAILABLE, kLibrary, ": expected NVIDIA's driver for CUDA 11.4 or newer, found no ",
         name);
  }
}

Driver load_driver() {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    fail(CN2_UNAVAILABLE, "CUDA needs NVIDIA's driver, which is not here (",
         reason == nullptr ? "no reason given" : shorten(reason), ")");
  }
  Driver driver{};
  find(library, "cuInit", driver.init);
  find(library, "cuGetErrorName", driver.error_name);
  find(library, "cuDeviceGetCount", driver.count_devices);
  find(library, "cuDeviceGet", driver.get_device);
  find(library, "cuDevicePrimaryCtxRetain", driver.retain);
  find(library, "cuDevicePrimaryCtxRelease_v2", driver.release);
  find(library, "cuCtxPushCurrent_v2", driver.push);
  find(library, "cuCtxPopCurrent_v2", driver.pop);
  find(library, "cuMemcpy2D_v2", driver.copy);
  find(library, "cuMemAlloc_v2", driver.allocate);
  find(library, "cuMemFree_v2", driver.free);
  find(library, "cuMemHostAlloc", driver.allocate_host);
  find(library, "cuMemFreeHost", driver.free_host);
  find(library, "cuMemcpyHtoDAsync_v2", driver.upload);
  find(library, "cuMemcpyDtoHAsync_v2", driver.download);
  find(library, "cuMemsetD8Async", driver.set);
  find(library, "cuPointerGetAttribute", driver.get_attribute);
  find(library, "cuStreamCreate", driver.create_stream);
  find(library, "cuStreamDestroy_v2", driver.destroy_stream);
  find(library, "cuStreamSynchronize", driver.synchronize);
  find(library, "cuEventCreate", driver.create_event);
  find(library, "cuEventDestroy_v2", driver.destroy_event);
  find(library, "cuEventRecord", driver.record);
  find(library, "cuEventSynchronize", driver.await);
  find(library, "cuStreamWaitEvent", driver.wait);
  find(library, "cuEventElapsedTime", driver.elapsed);
  find(library, "cuStreamBeginCapture_v2", driver.begin_capture);
  find(library, "cuStreamEndCapture", driver.end_capture);
  find(library, "cuGraphInstantiateWithFlags", driver.instantiate);
  find(library, "cuGraphLaunch", driver.launch_graph);
  find(library, "cuGraphDestroy", driver.destroy_graph);
  find(library, "cuGraphExecDestroy", driver.destroy_executable);
  return driver;
}

}  // namespace

const Driver& driver() {
  static const Driver loaded = load_driver();
  return loaded;
}

std::string describe(Result result) {
  const char* name = nullptr;
  if (driver().error_name(result, &name) != 0 || name == nullptr) {
    return text("CUDA error ", result);
  }
  return text("CUDA error ", result, " (", shorten(name), ")");
}

void probe(int device) {
  int count = 0;
  check(driver().init(0), CN2_UNAVAILABLE, "device 'cuda:", device, "': the driver does not start");
  check(driver().count_devices(&count), CN2_UNAVAILABLE, "device 'cuda:", device, "'");
  if (device >= count) {
    fail(CN2_UNAVAILABLE, "device 'cuda:", device, "': expected one of the ", count,
         " CUDA devices of this machine, the first of which is 'cuda:0'");
  }
}

bool is_on_device(const void* pointer, int device) {
  int found = -1;
  const auto address = static_cast<Pointer>(reinterpret_cast<uintptr_t>(pointer));
  return driver().get_attribute(&found, kDeviceOfPointer, address) == 0 && found == device;
}

PrimaryContext::PrimaryContext(int device) {
  check(driver().init(0), CN2_UNAVAILABLE, "cuInit");
  check(driver().get_device(&device_, device), CN2_UNAVAILABLE, "cuDeviceGet");
  check(driver().retain(&context_, device_), CN2_UNAVAILABLE, "cuDevicePrimaryCtxRetain");
}

PrimaryContext::~PrimaryContext() {
  driver().release(device_);
}

Current::Current(const PrimaryContext& context) {
  check(driver().push(context.get()), CN2_UNAVAILABLE, "cuCtxPushCurrent");
}

Current::~Current() {
  Handle context = nullptr;
  driver().pop(&context);
}

}  // namespace cn2::cuda
