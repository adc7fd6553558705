// Pictures in CUDA memory for ONNX Runtime: resized on the device, where it reads the canvases.
#pragma once

#include <memory>

#include "../cuda_objects.h"
#include "../cuda_preprocess.h"
#include "../engine.h"

namespace cn2 {

class OrtDevice {
 public:
  // Throws Error (CN2_UNAVAILABLE): no driver, no such device.
  OrtDevice(const cn2_cuda_module& kernels, int device);
  ~OrtDevice();
  OrtDevice(const OrtDevice&) = delete;
  OrtDevice& operator=(const OrtDevice&) = delete;

  void check(const Pixels& picture, Name what) const;

  // Canvases of input.pictures in device memory, until the next call. ONNX Runtime has streams of
  // its own, so this waits until they are there.
  void* fill(const EngineInput& input);

 private:
  // What must end while the context is current.
  struct Buffers {
    explicit Buffers(const cn2_cuda_module& kernels) : preprocessor(kernels) {}
    CudaPreprocessor preprocessor;
    cuda::DeviceBuffer canvases;
    cuda::Stream stream;
  };

  int device_;
  cuda::PrimaryContext context_;
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace cn2
