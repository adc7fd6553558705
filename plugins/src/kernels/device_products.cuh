// The sums of a block of the deformable convolution, by its threads: fp32 in registers, fp16 on tensor cores.
#pragma once

#include <mma.h>

#include "device_deform.cuh"

namespace cn2 {

// add(stage) adds the products of a stage; write(...) the sums and the bias to their place. The block's memory
// has room for `Memory`, which nobody else uses by then.
template <typename T, int kOutputs>
class Products;

// Where a block's sums belong.
template <typename T>
struct Target {
  const T* bias;  // of the first output, or null
  T* y;           // the first output's first pixel
  int outputs, pixels;
  int64_t plane;  // elements from one output to the next

  __device__ void write(int output, int pixel, float sum) const {
    if (output < outputs && pixel < pixels) {
      const float start = bias == nullptr ? 0.0f : to_float(bias[output]);
      y[output * plane + pixel] = from_float<T>(sum + start);
    }
  }
};

template <typename T>
__device__ Target<T> find_target(const DeformArguments& all, const Place& place) {
  const Geometry& size = all.size;
  const int channel = place.group * size.group_outputs + place.first_output;
  const T* bias = static_cast<const T*>(all.tensors.bias);
  return {bias == nullptr ? nullptr : bias + channel,
          static_cast<T*>(all.tensors.y) +
              (int64_t{place.picture} * size.outputs + channel) * size.out_pixels +
              place.first_pixel,
          size.group_outputs - place.first_output, size.out_pixels - place.first_pixel,
          size.out_pixels};
}

// Thread (i, j) has outputs i, i + 16, ... and pixels 4 j to 4 j + 3.
template <int kOutputs>
class Products<float, kOutputs> {
 public:
  struct Memory {};

  __device__ void add(const Stage<float, kOutputs>& stage) {
#pragma unroll
    for (int depth = 0; depth < kDepth; ++depth) {
      const float4 columns = *reinterpret_cast<const float4*>(&stage.columns[depth][pixel()]);
#pragma unroll
      for (int i = 0; i < kOutputs / kSide; ++i) {
        const float weight = stage.weights[depth][output() + i * kSide];
        sums_[i][0] += weight * columns.x;
        sums_[i][1] += weight * columns.y;
        sums_[i][2] += weight * columns.z;
        sums_[i][3] += weight * columns.w;
      }
    }
  }

  __device__ void write(const Target<float>& target, Memory&) const {
#pragma unroll
    for (int i = 0; i < kOutputs / kSide; ++i) {
#pragma unroll
      for (int j = 0; j < kPixelsOfThread; ++j) {
        target.write(output() + i * kSide, pixel() + j, sums_[i][j]);
      }
    }
  }

 private:
  static constexpr int kSide = 16;  // threads along outputs, and along pixels
  static constexpr int kPixelsOfThread = kPixels / kSide;

  __device__ static int output() { return static_cast<int>(threadIdx.x) / kSide; }
  __device__ static int pixel() { return static_cast<int>(threadIdx.x) % kSide * kPixelsOfThread; }

  float sums_[kOutputs / kSide][kPixelsOfThread] = {};
};

// The sums are tiles of 16 outputs by 16 pixels; the warps take turns at them.
template <int kOutputs>
class Products<__half, kOutputs> {
 public:
  struct Memory {
    float tiles[kDeformThreads / kWarp][256];  // one for each warp
  };

  __device__ Products() {
#pragma unroll
    for (int i = 0; i < kTilesOfWarp; ++i) {
      nvcuda::wmma::fill_fragment(sums_[i], 0.0f);
    }
  }

  __device__ void add(const Stage<__half, kOutputs>& stage) {
#pragma unroll
    for (int i = 0; i < kTilesOfWarp; ++i) {
      const int tile = tile_of(i);
      if (tile < kTiles) {
        Weights weights;
        Columns columns;
        nvcuda::wmma::load_matrix_sync(weights, &stage.weights[0][tile / kPixelTiles * kTile],
                                       kOutputs + kPad);
        nvcuda::wmma::load_matrix_sync(columns, &stage.columns[0][tile % kPixelTiles * kTile],
                                       kPixels + kPad);
        nvcuda::wmma::mma_sync(sums_[i], weights, columns, sums_[i]);
      }
    }
  }

  __device__ void write(const Target<__half>& target, Memory& memory) const {
    float* sums = memory.tiles[threadIdx.x / kWarp];
#pragma unroll
    for (int i = 0; i < kTilesOfWarp; ++i) {
      const int tile = tile_of(i);
      if (tile < kTiles) {
        nvcuda::wmma::store_matrix_sync(sums, sums_[i], kTile, nvcuda::wmma::mem_row_major);
        __syncwarp();
        for (int item = static_cast<int>(threadIdx.x % kWarp); item < kTile * kTile;
             item += kWarp) {
          target.write(tile / kPixelTiles * kTile + item / kTile,
                       tile % kPixelTiles * kTile + item % kTile, sums[item]);
        }
        __syncwarp();
      }
    }
  }

 private:
  static constexpr int kTile = 16;
  static constexpr int kPixelTiles = kPixels / kTile;
  static constexpr int kTiles = kOutputs / kTile * kPixelTiles;
  static constexpr int kWarps = kDeformThreads / kWarp;
  static constexpr int kTilesOfWarp = (kTiles + kWarps - 1) / kWarps;
  static_assert(kDepth == kTile);
  using Weights = nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, kTile, kTile, kTile, __half,
                                         nvcuda::wmma::col_major>;
  using Columns = nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, kTile, kTile, kTile, __half,
                                         nvcuda::wmma::row_major>;
  using Sums = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, kTile, kTile, kTile, float>;

  // A warp's tiles lie side by side: they share their weights.
  __device__ static int tile_of(int index) {
    return static_cast<int>(threadIdx.x / kWarp) * kTilesOfWarp + index;
  }

  Sums sums_[kTilesOfWarp];
};

}  // namespace cn2
