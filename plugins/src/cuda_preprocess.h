// Pictures in device memory onto canvases in device memory, by the kernels of libcn2_cuda.
#pragma once

#include <vector>

#include "canvas.h"
#include "cuda/module.h"
#include "cuda_objects.h"
#include "engine.h"

namespace cn2 {

// The module beside libcn2; null: it was not built, and pictures are resized on the host.
const cn2_cuda_module* find_cuda_module();

class CudaPreprocessor {
 public:
  explicit CudaPreprocessor(const cn2_cuda_module& module) : module_(module) {}

  // Write canvases [pictures.count, height, width, 3] at `canvases`, on the stream. The resized
  // sizes are [count, 2] height, width. Throws Error (CN2_OUT_OF_MEMORY, CN2_INFERENCE_ERROR).
  void run(const DevicePictures& pictures, const int32_t* sizes, Size canvas,
           cuda::Pointer canvases, cuda::Handle stream);

 private:
  const cn2_cuda_module& module_;
  std::vector<cn2_cuda_picture> given_;
  cuda::DeviceBuffer workspace_;
};

}  // namespace cn2
