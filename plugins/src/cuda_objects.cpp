#include "cuda_objects.h"

namespace cn2::cuda {

bool DeviceBuffer::reserve(size_t bytes) {
  if (bytes <= size_) {
    return false;
  }
  reset();
  check(driver().allocate(&address_, bytes), CN2_INFERENCE_ERROR, bytes, " bytes of CUDA memory");
  size_ = bytes;
  return true;
}

void DeviceBuffer::reset() {
  if (size_ > 0) {
    driver().free(address_);
  }
  address_ = 0;
  size_ = 0;
}

void PinnedBuffer::reserve(size_t bytes) {
  if (bytes <= size_) {
    return;
  }
  reset();
  check(driver().allocate_host(&data_, bytes, 0), CN2_INFERENCE_ERROR, bytes,
        " bytes of pinned memory");
  size_ = bytes;
}

void PinnedBuffer::reset() {
  if (size_ > 0) {
    driver().free_host(data_);
  }
  data_ = nullptr;
  size_ = 0;
}

Stream::Stream() : Object(driver().destroy_stream) {
  check(driver().create_stream(out(), kNonBlockingStream), CN2_INFERENCE_ERROR, "cuStreamCreate");
}

void Stream::follow(Handle other) {
  if (other == nullptr) {
    return;
  }
  check(driver().record(reached_.get(), other), CN2_INFERENCE_ERROR, "cuda_stream");
  check(driver().wait(get(), reached_.get(), 0), CN2_INFERENCE_ERROR, "cuda_stream");
}

Event::Event() : Object(driver().destroy_event) {
  check(driver().create_event(out(), 0), CN2_INFERENCE_ERROR, "cuEventCreate");
}

}  // namespace cn2::cuda
