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

// Throws Error (CN2_INVALID_ARGUMENT), naming `what`: the picture is not in the device's memory. The
// device's context must be current, as for all that follows.
void check_on_device(const Pixels& picture, int device, Name what);

class CudaPreprocessor {
 public:
  explicit CudaPreprocessor(const cn2_cuda_module& module) : module_(module) {}

  // Write input.pictures onto canvases [batch, height, width, 3] at `canvases`, on the stream; those
  // that are left over are blank. Throws Error (CN2_OUT_OF_MEMORY, CN2_INFERENCE_ERROR).
  void run(const EngineInput& input, cuda::Pointer canvases, cuda::Handle stream);

 private:
  const cn2_cuda_module& module_;
  std::vector<cn2_cuda_picture> given_;
  cuda::DeviceBuffer workspace_;
};

}  // namespace cn2
