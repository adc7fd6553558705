// Pillow's BILINEAR (preprocess_cuda.h says how nearly): a triangle filter that widens as the picture shrinks, along x, rounded to
// bytes, then along y. Three launches: weights of all columns and rows into the workspace, rows, columns.
#include "device_pixels.cuh"
#include "preprocess_launch.h"

namespace cn2 {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kColumns = 64;  // of a block that resizes rows
constexpr int kRows = 16;
constexpr int kBits = 22;  // of a weight's fraction
constexpr int kHalf = 1 << (kBits - 1);

// One side of a picture: for each pixel of the result `first`, `count`, `weights` [taps].
struct Axis {
  int32_t* table;
  int from, to, taps;

  __device__ int32_t* entry(int pixel) const { return table + int64_t{pixel} * (taps + 2); }
};

struct Tables {
  Axis columns, rows;
  uint8_t* resized;  // [height, resized_width, 3]
};

__device__ int count_taps(int from, int to) {
  return (from > to ? (from + to - 1) / to : 1) * 2 + 1;
}

__device__ double triangle(double distance) {
  return fmax(0.0, __dsub_rn(1.0, fabs(distance)));
}

// The order of the operations is Pillow's.
__device__ void fill_entry(const Axis& axis, int pixel) {
  const double scale = __ddiv_rn(axis.from, axis.to);
  const double widening = fmax(1.0, scale);
  const double narrowing = __ddiv_rn(1.0, widening);
  const double centre = __dmul_rn(__dadd_rn(pixel, 0.5), scale);
  const int first = max(0, static_cast<int>(__dadd_rn(__dsub_rn(centre, widening), 0.5)));
  const int end = min(axis.from, static_cast<int>(__dadd_rn(__dadd_rn(centre, widening), 0.5)));
  const auto share = [&](int i) {
    return triangle(__dmul_rn(__dadd_rn(__dsub_rn(i, centre), 0.5), narrowing));
  };
  double sum = 0;
  for (int i = first; i < end; ++i) {
    sum = __dadd_rn(sum, share(i));
  }
  int32_t* entry = axis.entry(pixel);
  entry[0] = first;
  entry[1] = end - first;
  for (int i = first; i < end; ++i) {
    const double weight = sum != 0 ? __ddiv_rn(share(i), sum) : share(i);
    entry[2 + i - first] = static_cast<int32_t>(__dadd_rn(__dmul_rn(weight, 1 << kBits), 0.5));
  }
}

__device__ Axis find_axis(void* table, int from, int to) {
  return {static_cast<int32_t*>(table), from, to, count_taps(from, to)};
}

struct Offsets {
  int64_t columns[kPicturesOfLaunch], rows[kPicturesOfLaunch], resized[kPicturesOfLaunch];
};

__device__ Tables find_tables(const PictureBatch& batch, const Offsets& offsets, unsigned index) {
  const CudaPicture& picture = batch.pictures[index];
  unsigned char* tables = batch.tables[index];
  return {find_axis(tables + offsets.columns[index], picture.width, picture.resized_width),
          find_axis(tables + offsets.rows[index], picture.height, picture.resized_height),
          tables + offsets.resized[index]};
}

__global__ void __launch_bounds__(kThreads)
    find_weights_kernel(const PictureBatch batch, const Offsets offsets) {
  const Tables tables = find_tables(batch, offsets, blockIdx.z);
  const int pixel = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (pixel < tables.columns.to) {
    fill_entry(tables.columns, pixel);
  }
  if (pixel < tables.rows.to) {
    fill_entry(tables.rows, pixel);
  }
}

__device__ Rgb resize_along_row(const CudaPicture& picture, int y, const int32_t* entry) {
  int red = kHalf, green = kHalf, blue = kHalf;
  const int first = entry[0];
  const int count = entry[1];
  for (int i = 0; i < count; ++i) {
    const Rgb pixel = read_pixel(picture, y, first + i);
    const int weight = entry[2 + i];
    red += pixel.red * weight;
    green += pixel.green * weight;
    blue += pixel.blue * weight;
  }
  return {to_byte(red, kBits), to_byte(green, kBits), to_byte(blue, kBits)};
}

__global__ void __launch_bounds__(kThreads)
    resize_rows_kernel(const PictureBatch batch, const Offsets offsets) {
  const CudaPicture& picture = batch.pictures[blockIdx.z];
  const Tables tables = find_tables(batch, offsets, blockIdx.z);
  const int x = static_cast<int>(blockIdx.x * kColumns + threadIdx.x % kColumns);
  if (x >= picture.resized_width) {
    return;
  }
  const int32_t* entry = tables.columns.entry(x);
  const int first = static_cast<int>(blockIdx.y) * kRows;
  for (int row = static_cast<int>(threadIdx.x) / kColumns; row < kRows;
       row += kThreads / kColumns) {
    const int y = first + row;
    if (y < picture.height) {
      write_pixel(tables.resized + 3 * (int64_t{y} * picture.resized_width + x),
                  resize_along_row(picture, y, entry));
    }
  }
}

// A thread makes one byte of each of the block's rows.
__global__ void __launch_bounds__(kThreads)
    resize_columns_kernel(const PictureBatch batch, const Offsets offsets) {
  const CudaPicture& picture = batch.pictures[blockIdx.z];
  const Tables tables = find_tables(batch, offsets, blockIdx.z);
  const int64_t canvas_row = int64_t{3} * batch.canvas.width;
  const int64_t resized_row = int64_t{3} * picture.resized_width;
  const int64_t byte = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int first_row = static_cast<int>(blockIdx.y) * kRows;
  for (int y = first_row; y < min(first_row + kRows, batch.canvas.height) && byte < canvas_row;
       ++y) {
    int value = 0;
    if (y < picture.resized_height && byte < resized_row) {
      const int32_t* entry = tables.rows.entry(y);
      const uint8_t* column = tables.resized + entry[0] * resized_row + byte;
      int sum = kHalf;
      for (int i = 0; i < entry[1]; ++i) {
        sum += column[i * resized_row] * entry[2 + i];
      }
      value = to_byte(sum, kBits);
    }
    batch.canvases[(int64_t{blockIdx.z} * batch.canvas.height + y) * canvas_row + byte] =
        static_cast<uint8_t>(value);
  }
  if (batch.image_sizes != nullptr && blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x < 2) {
    batch.image_sizes[2 * blockIdx.z + threadIdx.x] =
        threadIdx.x == 0 ? picture.resized_height : picture.resized_width;
  }
}

dim3 grid_of(int64_t x, int64_t y, int count) {
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(count));
}

}  // namespace

cudaError_t launch_antialias(const PictureBatch& batch, cudaStream_t stream) {
  Offsets offsets{};
  int width = 0, height = 0,
      longest = 0;  // of any picture: rows to resize and to what, table entries
  for (int i = 0; i < batch.count; ++i) {
    const CudaPicture& picture = batch.pictures[i];
    const AntialiasLayout layout = find_layout(picture);
    offsets.columns[i] = layout.columns;
    offsets.rows[i] = layout.rows;
    offsets.resized[i] = layout.resized;
    const auto larger = [](int a, int b) { return a > b ? a : b; };
    width = larger(width, picture.resized_width);
    height = larger(height, picture.height);
    longest = larger(longest, larger(picture.resized_width, picture.resized_height));
  }
  cudaError_t error =
      launch({grid_of(ceil_div(longest, kThreads), 1, batch.count), kThreads, 0, stream},
             find_weights_kernel, batch, offsets);
  if (error == cudaSuccess) {
    error = launch({grid_of(ceil_div(width, kColumns), ceil_div(height, kRows), batch.count),
                    kThreads, 0, stream},
                   resize_rows_kernel, batch, offsets);
  }
  if (error == cudaSuccess) {
    error = launch({grid_of(ceil_div(int64_t{3} * batch.canvas.width, kThreads),
                            ceil_div(batch.canvas.height, kRows), batch.count),
                    kThreads, 0, stream},
                   resize_columns_kernel, batch, offsets);
  }
  return error;
}

}  // namespace cn2
