#include "cuda_preprocess.h"

#include <dlfcn.h>

#include "beside.h"
#include "error.h"
#include "log.h"

namespace cn2 {
namespace {

constexpr const char* kFile = "libcn2_cuda.so";

const cn2_cuda_module* load_module() {
  const std::string path = own_folder() / kFile;
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = dlerror();
    log(CN2_LOG_INFO, text(kFile, " is not beside libcn2 (", reason == nullptr ? "" : reason,
                           "): pictures in CUDA memory are resized on the host"));
    return nullptr;
  }
  const auto get = reinterpret_cast<cn2_cuda_module_getter>(dlsym(handle, "cn2_cuda_module_get"));
  const cn2_cuda_module* module = get == nullptr ? nullptr : get();
  if (module == nullptr || module->version != CN2_CUDA_MODULE_VERSION) {
    fail(CN2_UNAVAILABLE, path, ": expected a module of version ", CN2_CUDA_MODULE_VERSION,
         "; install libcn2 again, all of one version");
  }
  return module;
}

cn2_cuda_picture describe(const Pixels& pixels, const int32_t* height_width) {
  return {pixels.data,
          pixels.chroma,
          static_cast<int64_t>(pixels.pitch),
          static_cast<int64_t>(pixels.chroma_pitch),
          pixels.format,
          pixels.size.width,
          pixels.size.height,
          height_width[1],
          height_width[0]};
}

}  // namespace

const cn2_cuda_module* find_cuda_module() {
  static const cn2_cuda_module* found = load_module();
  return found;
}

void check_on_device(const Pixels& picture, int device, Name what) {
  for (const uint8_t* plane : {picture.data, picture.chroma}) {
    if (plane != nullptr && !cuda::is_on_device(plane, device)) {
      invalid(what, ": the pointer is not of cuda:", device, ", on which the model runs");
    }
  }
}

void CudaPreprocessor::run(const EngineInput& input, cuda::Pointer canvases, cuda::Handle stream) {
  const DevicePictures& pictures = input.pictures;
  given_.clear();
  for (size_t i = 0; i < pictures.count; ++i) {
    given_.push_back(describe(pictures.pixels[i], input.picture_sizes + 2 * i));
  }
  const size_t bytes = module_.workspace_size(given_.data(), given_.size(), pictures.interpolation);
  if (bytes > workspace_.size()) {
    cuda::check(cuda::driver().synchronize(stream), CN2_INFERENCE_ERROR, "cuStreamSynchronize");
    workspace_.reserve(bytes);
  }
  const int32_t result =
      module_.preprocess(given_.data(), given_.size(), pictures.interpolation, input.height,
                         input.width, reinterpret_cast<void*>(static_cast<uintptr_t>(canvases)),
                         workspace_.pointer(), bytes, stream);
  cuda::check(result, CN2_INFERENCE_ERROR, "pictures in CUDA memory cannot be resized");
  const size_t canvas = canvas_bytes({input.height, input.width});
  const size_t blank = static_cast<size_t>(input.batch) - pictures.count;
  if (blank > 0) {
    cuda::check(cuda::driver().set(canvases + pictures.count * canvas, 0, blank * canvas, stream),
                CN2_INFERENCE_ERROR, "blank canvases");
  }
}

}  // namespace cn2
