// What a block of the deformable convolution works on: where taps lie, and their samples.
#pragma once

#include "cuda_launch.h"
#include "deform_conv_cuda.h"
#include "device_numbers.cuh"

namespace cn2 {

inline constexpr unsigned kDeformThreads = 256;
inline constexpr int kPixels = 64;  // of a block
inline constexpr int kDepth = 16;   // channels at once
inline constexpr int kPad =
    8;  // elements between rows in the block's memory, against bank conflicts

struct Geometry {
  int channels, height, width, outputs;
  int kernel_width, taps;
  int stride_y, stride_x, dilation_y, dilation_x, pad_top, pad_left;
  int group_channels, group_outputs, offset_channels, offset_groups;
  int out_width, out_pixels;
  int pixel_tiles, output_tiles;  // of a picture, of a group
};

struct DeformArguments {
  DeformConvTensors tensors;
  const void* weights;  // [groups, taps, group_channels, group_outputs], of the tensors' type
  Geometry size;
};

// Where one tap of one pixel reads: offsets in a plane, -1 outside, and weights, mask included.
struct Corners {
  int cell[4];
  float weight[4];
};

// A block's place in the result.
struct Place {
  int picture, group;
  int first_pixel, first_output;  // of the picture, of the group
};

__device__ inline Place find_place(const Geometry& size, int outputs_of_block) {
  const auto tile = static_cast<int>(blockIdx.x % static_cast<unsigned>(size.pixel_tiles));
  const auto output_tile = static_cast<int>(blockIdx.y % static_cast<unsigned>(size.output_tiles));
  return {static_cast<int>(blockIdx.x / static_cast<unsigned>(size.pixel_tiles)),
          static_cast<int>(blockIdx.y / static_cast<unsigned>(size.output_tiles)), tile * kPixels,
          output_tile * outputs_of_block};
}

__device__ inline void set_corner(Corners& corners, int index, const Geometry& size, int y, int x,
                                  float weight) {
  const bool inside = y >= 0 && y < size.height && x >= 0 && x < size.width;
  corners.cell[index] = inside ? y * size.width + x : -1;
  corners.weight[index] = weight;
}

__device__ inline Corners find_corners(const Geometry& size, float y, float x, float mask) {
  Corners corners{{-1, -1, -1, -1}, {0, 0, 0, 0}};
  if (y > -1 && y < static_cast<float>(size.height) && x > -1 &&
      x < static_cast<float>(size.width)) {
    const auto top = static_cast<int>(floorf(y));
    const auto left = static_cast<int>(floorf(x));
    const float down = y - static_cast<float>(top);
    const float right = x - static_cast<float>(left);
    set_corner(corners, 0, size, top, left, (1 - down) * (1 - right) * mask);
    set_corner(corners, 1, size, top, left + 1, (1 - down) * right * mask);
    set_corner(corners, 2, size, top + 1, left, down * (1 - right) * mask);
    set_corner(corners, 3, size, top + 1, left + 1, down * right * mask);
  }
  return corners;
}

// The corners of one tap of an offset group, for each of the block's pixels.
template <typename T>
__device__ void place_tap(const DeformArguments& all, const Place& place, int tap, int offset_group,
                          Corners* corners) {
  const Geometry& size = all.size;
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread >= kPixels) {
    return;
  }
  const int pixel = place.first_pixel + thread;
  if (pixel >= size.out_pixels) {
    corners[thread] = {{-1, -1, -1, -1}, {0, 0, 0, 0}};
    return;
  }
  const int64_t channel =
      (int64_t{place.picture} * size.offset_groups + offset_group) * size.taps + tap;
  const T* offset =
      static_cast<const T*>(all.tensors.offset) + 2 * channel * size.out_pixels + pixel;
  const T* masks = static_cast<const T*>(all.tensors.mask);
  const int row = pixel / size.out_width;
  const int kernel_row = tap / size.kernel_width;
  const int y = row * size.stride_y - size.pad_top + kernel_row * size.dilation_y;
  const int x = (pixel - row * size.out_width) * size.stride_x - size.pad_left +
                (tap - kernel_row * size.kernel_width) * size.dilation_x;
  corners[thread] =
      find_corners(size, static_cast<float>(y) + to_float(offset[0]),
                   static_cast<float>(x) + to_float(offset[size.out_pixels]),
                   masks == nullptr ? 1.0f : to_float(masks[channel * size.out_pixels + pixel]));
}

// Columns and weights of some channels at one tap; an element of another row lies in another bank.
template <typename T, int kOutputs>
struct Stage {
  Corners corners[kPixels];
  T columns[kDepth][kPixels + kPad];
  T weights[kDepth][kOutputs + kPad];
};

// `channels` begins at the first of `count` planes; the rest of the depth becomes 0.
template <typename T>
__device__ void sample_columns(const T* channels, int64_t plane, int count, const Corners* corners,
                               T (*columns)[kPixels + kPad]) {
  const auto pixel = static_cast<int>(threadIdx.x) % kPixels;
  const Corners at = corners[pixel];
  for (int i = static_cast<int>(threadIdx.x) / kPixels; i < kDepth; i += kDeformThreads / kPixels) {
    float value = 0;
    if (i < count) {
      const T* cells = channels + i * plane;
      for (int corner = 0; corner < 4; ++corner) {
        if (at.cell[corner] >= 0) {
          value += at.weight[corner] * to_float(cells[at.cell[corner]]);
        }
      }
    }
    columns[i][pixel] = from_float<T>(value);
  }
}

// Weights of `count` channels, group_outputs apart; what lies outside becomes 0.
template <typename T, int kOutputs>
__device__ void read_weights(const T* from, int count, int group_outputs, int first_output,
                             T (*weights)[kOutputs + kPad]) {
  for (int item = static_cast<int>(threadIdx.x); item < kDepth * kOutputs; item += kDeformThreads) {
    const int channel = item / kOutputs;
    const int output = item % kOutputs;
    const bool inside = channel < count && first_output + output < group_outputs;
    weights[channel][output] =
        inside ? from[int64_t{channel} * group_outputs + first_output + output] : from_float<T>(0);
  }
}

}  // namespace cn2
