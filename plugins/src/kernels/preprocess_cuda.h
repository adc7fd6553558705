// Pictures onto canvases, on the GPU: formats, resizing, placing at the top left.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace cn2 {

// The numbers of cn2.h.
enum class PixelFormat : int32_t { kRgb = 0, kBgr = 1, kRgba = 2, kBgra = 3, kGrey = 4, kNv12 = 5 };
enum class Interpolation : int32_t { kAntialias = 0, kLinear = 1 };  // as Pillow's, as OpenCV's

// One picture in device memory, as cn2_image; all of it is known: no pitch is 0.
struct CudaPicture {
  const uint8_t* data;
  const uint8_t* chroma;  // kNv12 only: the second plane
  int64_t pitch;          // bytes from one row to the next
  int64_t chroma_pitch;
  PixelFormat format;
  int32_t width, height;                  // pixels, 1 to 65535; kNv12: even
  int32_t resized_width, resized_height;  // on the canvas
};

struct CanvasShape {
  int32_t height, width;  // pixels, 1 to 65535
};

// Resize each picture to the top left of its canvas; the rest becomes 0. To the bit what OpenCV gives, and
// Pillow, but that Pillow 13 goes along y first where a picture is much higher than wide: there a byte may
// differ by 1.
//   pictures      `count` structs in host memory, read before it returns.
//   canvases      [count, height, width, 3] RGB.
//   image_sizes   [count, 2] receives resized heights and widths; may be null.
//   workspace     preprocess_workspace_size(pictures, count, interpolation) bytes, or more; cudaErrorInvalidValue
//                 if less.
cudaError_t preprocess_cuda(const CudaPicture* pictures, size_t count, Interpolation interpolation,
                            const CanvasShape& canvas, uint8_t* canvases, int32_t* image_sizes,
                            void* workspace, size_t workspace_size, cudaStream_t stream) noexcept;

// Bytes; 0 for kLinear. It grows with the pictures: ask for the largest ones that are to come.
size_t preprocess_workspace_size(const CudaPicture* pictures, size_t count,
                                 Interpolation interpolation) noexcept;

// Whether a call can have these pictures.
bool is_possible_on_cuda(const CudaPicture* pictures, size_t count, Interpolation interpolation,
                         const CanvasShape& canvas) noexcept;

}  // namespace cn2
