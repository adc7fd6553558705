#include "onnxruntime/device.h"

namespace cn2 {

OrtDevice::OrtDevice(const cn2_cuda_module& kernels, int device)
    : device_(device), context_(device) {
  const cuda::Current current(context_);
  buffers_ = std::make_unique<Buffers>(kernels);
}

OrtDevice::~OrtDevice() {
  if (!cuda::release_in(context_, [&] { buffers_.reset(); })) {
    static_cast<void>(buffers_.release());
  }
}

void OrtDevice::check(const Pixels& picture, Name what) const {
  const cuda::Current current(context_);
  check_on_device(picture, device_, what);
}

void* OrtDevice::fill(const EngineInput& input) {
  const cuda::Current current(context_);
  const cuda::Handle stream = buffers_->stream.get();
  buffers_->stream.follow(input.cuda_stream);
  cuda::DeviceBuffer& canvases = buffers_->canvases;
  canvases.reserve(static_cast<size_t>(input.batch) * canvas_bytes({input.height, input.width}));
  buffers_->preprocessor.run(input, canvases.address(), stream);
  cuda::check(cuda::driver().synchronize(stream), CN2_INFERENCE_ERROR,
              "pictures in CUDA memory cannot be resized");
  return canvases.pointer();
}

}  // namespace cn2
