// OpenCV's INTER_LINEAR on bytes, bit for bit: four pixels weighted in 11 fractional bits, no antialiasing;
// exactly half the size is the mean of 2 x 2 pixels. A block makes 64 x 16 pixels of a canvas.
#include "device_pixels.cuh"
#include "preprocess_launch.h"

namespace cn2 {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kColumns = 64;
constexpr int kRows = 16;
constexpr float kOne = 1 << 11;  // a weight of 1

// What a pixel takes of its row or column.
struct Pair {
  int first, second;
  int first_weight, second_weight;
};

struct Block {
  Pair columns[kColumns];
  Pair rows[kRows];
};

// clamp_weights: at the edge all weight goes to the edge's pixel, as OpenCV does along a row; along a column it
// takes that pixel twice, which rounds differently.
__device__ Pair find_pair(int index, int from, int to, bool clamp_weights) {
  const double scale = __ddiv_rn(1.0, __ddiv_rn(to, from));  // OpenCV's rounding
  const auto centre = static_cast<float>(__dsub_rn(__dmul_rn(__dadd_rn(index, 0.5), scale), 0.5));
  const auto below = static_cast<int>(floorf(centre));
  const bool outside = below < 0 || below >= from - 1;
  const float share =
      outside && clamp_weights ? 0.0f : __fsub_rn(centre, static_cast<float>(below));
  return {min(max(below, 0), from - 1), min(max(below + 1, 0), from - 1),
          static_cast<int>(rintf(__fmul_rn(__fsub_rn(1.0f, share), kOne))),
          static_cast<int>(rintf(__fmul_rn(share, kOne)))};
}

__device__ int blend(int a, int b, int c, int d, const Pair& x, const Pair& y) {
  const int upper = (a * x.first_weight + b * x.second_weight) >> 4;
  const int lower = (c * x.first_weight + d * x.second_weight) >> 4;
  return (((upper * y.first_weight) >> 16) + ((lower * y.second_weight) >> 16) + 2) >> 2;
}

__device__ Rgb interpolate(const CudaPicture& picture, const Pair& y, const Pair& x) {
  const Rgb a = read_pixel(picture, y.first, x.first);
  const Rgb b = read_pixel(picture, y.first, x.second);
  const Rgb c = read_pixel(picture, y.second, x.first);
  const Rgb d = read_pixel(picture, y.second, x.second);
  return {blend(a.red, b.red, c.red, d.red, x, y), blend(a.green, b.green, c.green, d.green, x, y),
          blend(a.blue, b.blue, c.blue, d.blue, x, y)};
}

__device__ Rgb mean_of_four(const CudaPicture& picture, int y, int x) {
  const Rgb a = read_pixel(picture, 2 * y, 2 * x);
  const Rgb b = read_pixel(picture, 2 * y, 2 * x + 1);
  const Rgb c = read_pixel(picture, 2 * y + 1, 2 * x);
  const Rgb d = read_pixel(picture, 2 * y + 1, 2 * x + 1);
  return {(a.red + b.red + c.red + d.red + 2) >> 2,
          (a.green + b.green + c.green + d.green + 2) >> 2,
          (a.blue + b.blue + c.blue + d.blue + 2) >> 2};
}

__device__ void find_pairs(const CudaPicture& picture, int first_row, int first_column,
                           Block& block) {
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread < kColumns) {
    block.columns[thread] =
        find_pair(first_column + thread, picture.width, picture.resized_width, true);
  } else if (thread < kColumns + kRows) {
    block.rows[thread - kColumns] =
        find_pair(first_row + thread - kColumns, picture.height, picture.resized_height, false);
  }
}

__device__ Rgb resize_pixel(const CudaPicture& picture, int y, int x, const Pair& row,
                            const Pair& column) {
  if (y >= picture.resized_height || x >= picture.resized_width) {
    return {0, 0, 0};
  }
  const bool halves =
      picture.height == 2 * picture.resized_height && picture.width == 2 * picture.resized_width;
  return halves ? mean_of_four(picture, y, x) : interpolate(picture, row, column);
}

__global__ void __launch_bounds__(kThreads) resize_linear_kernel(const PictureBatch batch) {
  Block& block = shared_memory<Block>();
  const CudaPicture& picture = batch.pictures[blockIdx.z];
  const int first_row = static_cast<int>(blockIdx.y) * kRows;
  const int first_column = static_cast<int>(blockIdx.x) * kColumns;
  find_pairs(picture, first_row, first_column, block);
  __syncthreads();
  const int column = static_cast<int>(threadIdx.x) % kColumns;
  const int x = first_column + column;
  if (x < batch.canvas.width) {
    uint8_t* canvas =
        batch.canvases + int64_t{3} * blockIdx.z * batch.canvas.height * batch.canvas.width;
    for (int row = static_cast<int>(threadIdx.x) / kColumns; row < kRows;
         row += kThreads / kColumns) {
      const int y = first_row + row;
      if (y < batch.canvas.height) {
        write_pixel(canvas + 3 * (int64_t{y} * batch.canvas.width + x),
                    resize_pixel(picture, y, x, block.rows[row], block.columns[column]));
      }
    }
  }
  if (batch.image_sizes != nullptr && blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x < 2) {
    batch.image_sizes[2 * blockIdx.z + threadIdx.x] =
        threadIdx.x == 0 ? picture.resized_height : picture.resized_width;
  }
}

}  // namespace

cudaError_t launch_linear(const PictureBatch& batch, cudaStream_t stream) {
  const Launch at{dim3(static_cast<unsigned>(ceil_div(batch.canvas.width, kColumns)),
                       static_cast<unsigned>(ceil_div(batch.canvas.height, kRows)),
                       static_cast<unsigned>(batch.count)),
                  kThreads, sizeof(Block), stream};
  return launch(at, resize_linear_kernel, batch);
}

}  // namespace cn2
