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

struct Call {
  std::vector<cn2_cuda_picture> pictures;
  int32_t interpolation, height, width;
  void *canvases, *workspace;
  size_t workspace_size;
};

void run(void* data) {
  const Call& call = *static_cast<const Call*>(data);
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
  static const auto launch = reinterpret_cast<Launch>(
      dlsym(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL), "cuLaunchHostFunc"));
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
