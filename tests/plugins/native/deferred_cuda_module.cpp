// libcn2_cuda with emulated kernels, whose work is done in a stream's order, as the driver for tests has
// it: cuLaunchHostFunc takes it.
#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#define cn2_cuda_module_get cn2_emulated_module_get
#include "../../../plugins/src/cuda/module.cpp"
#undef cn2_cuda_module_get

namespace {

using Launch = int (*)(void* stream, void (*)(void*), void*);
using Check = void (*)(const void* start, size_t bytes);

template <class Function>
Function find(const char* name) {
  return reinterpret_cast<Function>(dlsym(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL), name));
}

struct Call {
  std::vector<cn2_cuda_picture> pictures;
  int32_t interpolation, height, width;
  void *canvases, *workspace;
  size_t workspace_size;
};

void run(void* data) {
  static const auto check = find<Check>("fake_cuda_check");
  const Call& call = *static_cast<const Call*>(data);
  check(call.workspace, call.workspace_size);
  check(call.canvases, 1);
  const int32_t result = cn2_emulated_module_get()->preprocess(
      call.pictures.data(), call.pictures.size(), call.interpolation, call.height, call.width,
      call.canvases, call.workspace, call.workspace_size, nullptr);
  delete &call;
  if (result != 0) {
    std::abort();
  }
}

int32_t preprocess(const cn2_cuda_picture* pictures, size_t count, int32_t interpolation,
                   int32_t height, int32_t width, void* canvases, void* workspace,
                   size_t workspace_size, void* stream) {
  static const auto launch = find<Launch>("cuLaunchHostFunc");
  return launch(stream, run,
                new Call{{pictures, pictures + count},
                         interpolation,
                         height,
                         width,
                         canvases,
                         workspace,
                         workspace_size});
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const cn2_cuda_module* cn2_cuda_module_get() {
  static const cn2_cuda_module deferred = {CN2_CUDA_MODULE_VERSION,
                                           cn2_emulated_module_get()->workspace_size, preprocess};
  return &deferred;
}
