// A picture's pixels as RGB, in registers.
#pragma once

#include <cuda_runtime.h>

#include "preprocess_cuda.h"

namespace cn2 {

struct Rgb {
  int red, green, blue;
};

__device__ inline int to_byte(int value, int bits) {
  return min(max(value >> bits, 0), 255);
}

// ITU-R BT.601, limited range, in 20 fractional bits and OpenCV's rounding: 255/219 for luma; 1.596, -0.813,
// -0.391, 2.018 for chroma.
__device__ inline Rgb from_yuv(int luma, int u, int v) {
  constexpr int kBits = 20;
  constexpr int kHalf = 1 << (kBits - 1);
  const int light = max(0, luma - 16) * 1220542 + kHalf;
  return {to_byte(light + 1673527 * v, kBits), to_byte(light - 852492 * v - 409993 * u, kBits),
          to_byte(light + 2116026 * u, kBits)};
}

__device__ inline Rgb read_pixel(const CudaPicture& picture, int y, int x) {
  const uint8_t* row = picture.data + y * picture.pitch;
  switch (picture.format) {
    case PixelFormat::kRgb:
      return {row[3 * x], row[3 * x + 1], row[3 * x + 2]};
    case PixelFormat::kBgr:
      return {row[3 * x + 2], row[3 * x + 1], row[3 * x]};
    case PixelFormat::kRgba:
      return {row[4 * x], row[4 * x + 1], row[4 * x + 2]};
    case PixelFormat::kBgra:
      return {row[4 * x + 2], row[4 * x + 1], row[4 * x]};
    case PixelFormat::kGrey:
      return {row[x], row[x], row[x]};
    default: {
      const uint8_t* pair = picture.chroma + y / 2 * picture.chroma_pitch + x / 2 * 2;
      return from_yuv(row[x], pair[0] - 128, pair[1] - 128);
    }
  }
}

__device__ inline void write_pixel(uint8_t* rgb, const Rgb& pixel) {
  rgb[0] = static_cast<uint8_t>(pixel.red);
  rgb[1] = static_cast<uint8_t>(pixel.green);
  rgb[2] = static_cast<uint8_t>(pixel.blue);
}

}  // namespace cn2
