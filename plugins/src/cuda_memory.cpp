#include "cuda_memory.h"

#include "cuda_driver.h"

namespace cn2 {
namespace {

void copy_plane(const uint8_t* source, size_t pitch, size_t row, size_t rows, uint8_t* target) {
  cuda::Copy2D copy{};
  copy.source_kind = cuda::kDeviceMemory;
  copy.source_device = reinterpret_cast<uintptr_t>(source);
  copy.source_pitch = pitch;
  copy.target_kind = cuda::kHostMemory;
  copy.target_host = target;
  copy.target_pitch = row;
  copy.width_bytes = row;
  copy.height = rows;
  cuda::check(cuda::driver().copy(&copy), CN2_INVALID_ARGUMENT,
              "images: the pointer is not of this CUDA device");
}

}  // namespace

Pixels CudaCopier::to_host(const Pixels& picture, int device, void* stream) {
  const size_t row = picture.row_bytes();
  const auto rows = static_cast<size_t>(picture.size.height);
  const bool planar = picture.format == CN2_NV12;
  host_.resize(row * rows + (planar ? row * (rows / 2) : 0));
  const cuda::PrimaryContext context(device);
  const cuda::Current current(context);
  if (stream != nullptr) {
    cuda::check(cuda::driver().synchronize(stream), CN2_INVALID_ARGUMENT, "cuda_stream");
  }
  copy_plane(picture.data, picture.pitch, row, rows, host_.data());
  Pixels host = picture;
  host.memory = CN2_HOST;
  host.data = host_.data();
  host.pitch = row;
  if (planar) {
    copy_plane(picture.chroma, picture.chroma_pitch, row, rows / 2, host_.data() + row * rows);
    host.chroma = host_.data() + row * rows;
    host.chroma_pitch = row;
  }
  return host;
}

}  // namespace cn2
