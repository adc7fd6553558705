// libcn2_cuda: the functions of module.h over the kernels.
#include "module.h"

#include "preprocess_cuda.h"

namespace cn2 {
namespace {

// The same struct under two names; the header of the kernels is C++ and needs CUDA's.
static_assert(sizeof(cn2_cuda_picture) == sizeof(CudaPicture) &&
              offsetof(cn2_cuda_picture, chroma_pitch) == offsetof(CudaPicture, chroma_pitch) &&
              offsetof(cn2_cuda_picture, format) == offsetof(CudaPicture, format) &&
              offsetof(cn2_cuda_picture, resized_height) == offsetof(CudaPicture, resized_height));

const CudaPicture* as_kernels(const cn2_cuda_picture* pictures) {
  return reinterpret_cast<const CudaPicture*>(pictures);
}

size_t workspace_size(const cn2_cuda_picture* pictures, size_t count, int32_t interpolation) {
  return preprocess_workspace_size(as_kernels(pictures), count,
                                   static_cast<Interpolation>(interpolation));
}

int32_t preprocess(const cn2_cuda_picture* pictures, size_t count, int32_t interpolation,
                   int32_t height, int32_t width, void* canvases, void* workspace,
                   size_t workspace_bytes, void* stream) {
  return preprocess_cuda(as_kernels(pictures), count, static_cast<Interpolation>(interpolation),
                         {height, width}, static_cast<uint8_t*>(canvases), nullptr, workspace,
                         workspace_bytes, static_cast<cudaStream_t>(stream));
}

constexpr cn2_cuda_module kModule = {CN2_CUDA_MODULE_VERSION, workspace_size, preprocess};

}  // namespace
}  // namespace cn2

extern "C" __attribute__((visibility("default"))) const cn2_cuda_module* cn2_cuda_module_get(void) {
  return &cn2::kModule;
}
