// A product of the weights and of sampled columns that are never in memory as a whole: a block makes some outputs
// of 64 pixels, and takes 16 channels at one tap at a time: it samples them into its own memory, reads the
// weights that go with them, and adds their products. Where a tap lies and how its four cells count is
// found once for all channels. A first kernel puts the weights into the order in which they are read.
#include "cuda_launch.h"
#include "deform_conv_cuda.h"
#include "device_numbers.cuh"

namespace cn2 {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kPixels = 64;  // of a block
constexpr int kDepth = 16;   // channels at once
constexpr int kSide = 16;    // threads along outputs, and along pixels
constexpr int kPixelsOfThread = kPixels / kSide;

struct Geometry {
  int channels, height, width, outputs;
  int kernel_width, taps;
  int stride_y, stride_x, dilation_y, dilation_x, pad_top, pad_left;
  int group_channels, group_outputs, offset_channels, offset_groups;
  int out_width, out_pixels;
  int pixel_tiles, output_tiles;  // of a picture, of a group
};

struct Arguments {
  DeformConvTensors tensors;
  const float* weights;  // [groups, taps, group_channels, group_outputs]
  Geometry size;
};

// Where one tap of one pixel reads: offsets in a plane, -1 outside, and weights, mask included.
struct Corners {
  int cell[4];
  float weight[4];
};

template <int kOutputs>
struct Block {
  Corners corners[kPixels];
  float columns[kDepth][kPixels];
  float weights[kDepth][kOutputs];
};

// A block's place in the result.
struct Place {
  int picture, group;
  int first_pixel, first_output;  // of the picture, of the group
};

__device__ Place find_place(const Geometry& size, int outputs_of_block) {
  const auto tile = static_cast<int>(blockIdx.x % static_cast<unsigned>(size.pixel_tiles));
  const auto output_tile = static_cast<int>(blockIdx.y % static_cast<unsigned>(size.output_tiles));
  return {static_cast<int>(blockIdx.x / static_cast<unsigned>(size.pixel_tiles)),
          static_cast<int>(blockIdx.y / static_cast<unsigned>(size.output_tiles)), tile * kPixels,
          output_tile * outputs_of_block};
}

__device__ void set_corner(Corners& corners, int index, const Geometry& size, int y, int x,
                           float weight) {
  const bool inside = y >= 0 && y < size.height && x >= 0 && x < size.width;
  corners.cell[index] = inside ? y * size.width + x : -1;
  corners.weight[index] = weight;
}

__device__ Corners find_corners(const Geometry& size, float y, float x, float mask) {
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
__device__ void place_tap(const Arguments& all, const Place& place, int tap, int offset_group,
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

// `channels` begins at the first of `count` planes; the rest of the depth becomes 0.
template <typename T>
__device__ void sample_columns(const T* channels, int64_t plane, int count, const Corners* corners,
                               float (*columns)[kPixels]) {
  const auto pixel = static_cast<int>(threadIdx.x) % kPixels;
  const Corners at = corners[pixel];
  for (int i = static_cast<int>(threadIdx.x) / kPixels; i < kDepth; i += kThreads / kPixels) {
    float value = 0;
    if (i < count) {
      const T* cells = channels + i * plane;
      for (int corner = 0; corner < 4; ++corner) {
        if (at.cell[corner] >= 0) {
          value += at.weight[corner] * to_float(cells[at.cell[corner]]);
        }
      }
    }
    columns[i][pixel] = value;
  }
}

// Weights of `count` channels, group_outputs apart; what lies outside becomes 0.
template <int kOutputs>
__device__ void read_weights(const float* from, int count, int group_outputs, int first_output,
                             float (*weights)[kOutputs]) {
  for (int item = static_cast<int>(threadIdx.x); item < kDepth * kOutputs; item += kThreads) {
    const int channel = item / kOutputs;
    const int output = item % kOutputs;
    const bool inside = channel < count && first_output + output < group_outputs;
    weights[channel][output] =
        inside ? from[int64_t{channel} * group_outputs + first_output + output] : 0;
  }
}

// Thread (i, j) has outputs i, i + 16, ... and pixels 4 j to 4 j + 3.
template <int kOutputs>
__device__ void add_products(const Block<kOutputs>& block,
                             float (&sums)[kOutputs / kSide][kPixelsOfThread]) {
  const auto output = static_cast<int>(threadIdx.x) / kSide;
  const auto pixel = static_cast<int>(threadIdx.x) % kSide * kPixelsOfThread;
#pragma unroll
  for (int depth = 0; depth < kDepth; ++depth) {
    const float4 columns = *reinterpret_cast<const float4*>(&block.columns[depth][pixel]);
#pragma unroll
    for (int i = 0; i < kOutputs / kSide; ++i) {
      const float weight = block.weights[depth][output + i * kSide];
      sums[i][0] += weight * columns.x;
      sums[i][1] += weight * columns.y;
      sums[i][2] += weight * columns.z;
      sums[i][3] += weight * columns.w;
    }
  }
}

template <typename T, int kOutputs>
__device__ void add_tap(const Arguments& all, const Place& place, int tap, Block<kOutputs>& block,
                        float (&sums)[kOutputs / kSide][kPixelsOfThread]) {
  const Geometry& size = all.size;
  const auto plane = static_cast<int64_t>(size.height) * size.width;
  const int begin = place.group * size.group_channels;
  const int end = begin + size.group_channels;
  const T* picture = static_cast<const T*>(all.tensors.x) + place.picture * size.channels * plane;
  const float* weights = all.weights + (int64_t{place.group} * size.taps + tap) *
                                           size.group_channels * size.group_outputs;
  int offset_group = -1;
  for (int channel = begin, count = 0; channel < end; channel += count) {
    if (channel / size.offset_channels != offset_group) {
      offset_group = channel / size.offset_channels;
      place_tap<T>(all, place, tap, offset_group, block.corners);
      __syncthreads();
    }
    const int last = min(end, (offset_group + 1) * size.offset_channels);
    count = min(kDepth, last - channel);
    sample_columns(picture + channel * plane, plane, count, block.corners, block.columns);
    read_weights<kOutputs>(weights + int64_t{channel - begin} * size.group_outputs, count,
                           size.group_outputs, place.first_output, block.weights);
    __syncthreads();
    add_products<kOutputs>(block, sums);
    __syncthreads();
  }
}

template <typename T, int kOutputs>
__device__ void write_sums(const Arguments& all, const Place& place,
                           const float (&sums)[kOutputs / kSide][kPixelsOfThread]) {
  const Geometry& size = all.size;
  const auto output = place.first_output + static_cast<int>(threadIdx.x) / kSide;
  const auto pixel = place.first_pixel + static_cast<int>(threadIdx.x) % kSide * kPixelsOfThread;
  const T* bias = static_cast<const T*>(all.tensors.bias);
#pragma unroll
  for (int i = 0; i < kOutputs / kSide; ++i) {
    const int in_group = output + i * kSide;
    if (in_group < size.group_outputs) {
      const int channel = place.group * size.group_outputs + in_group;
      const float start = bias == nullptr ? 0 : to_float(bias[channel]);
      T* y = static_cast<T*>(all.tensors.y) +
             (int64_t{place.picture} * size.outputs + channel) * size.out_pixels;
#pragma unroll
      for (int j = 0; j < kPixelsOfThread; ++j) {
        if (pixel + j < size.out_pixels) {
          y[pixel + j] = from_float<T>(sums[i][j] + start);
        }
      }
    }
  }
}

template <typename T, int kOutputs>
__global__ void __launch_bounds__(kThreads, 2) deform_conv_kernel(const Arguments all) {
  Block<kOutputs>& block = shared_memory<Block<kOutputs>>();
  const Place place = find_place(all.size, kOutputs);
  float sums[kOutputs / kSide][kPixelsOfThread] = {};
  for (int tap = 0; tap < all.size.taps; ++tap) {
    add_tap<T, kOutputs>(all, place, tap, block, sums);
  }
  write_sums<T, kOutputs>(all, place, sums);
}

// [outputs, group_channels, taps] -> [groups, taps, group_channels, group_outputs]
template <typename T>
__global__ void __launch_bounds__(kThreads)
    order_weights_kernel(const Arguments all, float* ordered, int64_t count) {
  const Geometry& size = all.size;
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item < count) {
    const int64_t row = item / size.group_outputs;
    const int64_t output = item % size.group_outputs;
    const int64_t channel = row % size.group_channels;
    const int64_t group_tap = row / size.group_channels;
    const int64_t group = group_tap / size.taps;
    const int64_t from =
        ((group * size.group_outputs + output) * size.group_channels + channel) * size.taps +
        group_tap % size.taps;
    ordered[item] = to_float(static_cast<const T*>(all.tensors.weight)[from]);
  }
}

int64_t weight_count(const DeformConvShape& shape) {
  return shape.outputs * (shape.channels / shape.groups) * shape.kernel_height * shape.kernel_width;
}

int outputs_of_block(int64_t group_outputs) {
  return group_outputs <= 16 ? 16 : group_outputs <= 64 ? 64 : 128;
}

Geometry measure(const DeformConvShape& shape, int block_outputs) {
  const auto number = [](int64_t value) { return static_cast<int>(value); };
  Geometry size{};
  size.channels = number(shape.channels);
  size.height = number(shape.height);
  size.width = number(shape.width);
  size.outputs = number(shape.outputs);
  size.kernel_width = number(shape.kernel_width);
  size.taps = number(shape.kernel_height * shape.kernel_width);
  size.stride_y = number(shape.stride_y);
  size.stride_x = number(shape.stride_x);
  size.dilation_y = number(shape.dilation_y);
  size.dilation_x = number(shape.dilation_x);
  size.pad_top = number(shape.pad_top);
  size.pad_left = number(shape.pad_left);
  size.group_channels = number(shape.channels / shape.groups);
  size.group_outputs = number(shape.outputs / shape.groups);
  size.offset_channels = number(shape.channels / shape.offset_groups);
  size.offset_groups = number(shape.offset_groups);
  size.out_width = number(shape.out_width());
  size.out_pixels = number(shape.out_height() * shape.out_width());
  size.pixel_tiles = number(ceil_div(size.out_pixels, kPixels));
  size.output_tiles = number(ceil_div(size.group_outputs, block_outputs));
  return size;
}

template <typename T, int kOutputs>
cudaError_t launch_blocks(const Arguments& all, const DeformConvShape& shape, cudaStream_t stream) {
  const auto x = static_cast<unsigned>(shape.batch * all.size.pixel_tiles);
  const auto y = static_cast<unsigned>(shape.groups * all.size.output_tiles);
  return launch({dim3(x, y), kThreads, sizeof(Block<kOutputs>), stream},
                deform_conv_kernel<T, kOutputs>, all);
}

template <typename T>
cudaError_t launch_all(const Arguments& all, const DeformConvShape& shape, int block_outputs,
                       float* ordered, cudaStream_t stream) {
  const int64_t count = weight_count(shape);
  if (count > 0) {
    const auto blocks = static_cast<unsigned>(ceil_div(count, kThreads));
    const cudaError_t error =
        launch({dim3(blocks), kThreads, 0, stream}, order_weights_kernel<T>, all, ordered, count);
    if (error != cudaSuccess) {
      return error;
    }
  }
  switch (block_outputs) {
    case 16:
      return launch_blocks<T, 16>(all, shape, stream);
    case 64:
      return launch_blocks<T, 64>(all, shape, stream);
    default:
      return launch_blocks<T, 128>(all, shape, stream);
  }
}

// Numbers that the kernels may multiply as int32.
bool are_small(std::initializer_list<int64_t> numbers, int64_t least) {
  for (const int64_t number : numbers) {
    if (number < least || number > (1 << 20)) {
      return false;
    }
  }
  return true;
}

bool has_groups(const DeformConvShape& shape) {
  return shape.groups >= 1 && shape.offset_groups >= 1 && shape.channels % shape.groups == 0 &&
         shape.outputs % shape.groups == 0 && shape.channels % shape.offset_groups == 0;
}

}  // namespace

bool is_possible_on_cuda(const DeformConvShape& shape) noexcept {
  constexpr int64_t kMostCells = 1 << 30;  // of a plane
  if (!are_small({shape.batch, shape.channels, shape.height, shape.width, shape.outputs,
                  shape.pad_top, shape.pad_left, shape.pad_bottom, shape.pad_right},
                 0) ||
      !are_small({shape.stride_y, shape.stride_x, shape.dilation_y, shape.dilation_x}, 1) ||
      shape.kernel_height < 1 || shape.kernel_height > 64 || shape.kernel_width < 1 ||
      shape.kernel_width > 64 || !has_groups(shape)) {
    return false;
  }
  const int64_t height = shape.out_height();
  const int64_t width = shape.out_width();
  const int64_t taps = shape.kernel_height * shape.kernel_width;
  return height >= 0 && width >= 0 && shape.height * shape.width <= kMostCells &&
         height * width <= kMostCells &&
         is_tensor({shape.batch, shape.channels, shape.height, shape.width}) &&
         is_tensor({shape.batch, shape.outputs, height, width}) &&
         is_tensor({shape.batch, shape.offset_groups, taps, 2, height, width}) &&
         weight_count(shape) <= kMostGridX * kThreads &&
         shape.batch * ceil_div(height * width, kPixels) <= kMostGridX &&
         shape.groups * ceil_div(shape.outputs / shape.groups, 16) <= kMostGridYZ;
}

size_t deform_conv_workspace_size(const DeformConvShape& shape) noexcept {
  return is_possible_on_cuda(shape) ? static_cast<size_t>(weight_count(shape)) * sizeof(float) : 0;
}

cudaError_t deform_conv_cuda(const DeformConvTensors& tensors, const DeformConvShape& shape,
                             FeatureType type, void* workspace, size_t workspace_size,
                             cudaStream_t stream) noexcept {
  if (!is_possible_on_cuda(shape) || workspace_size < deform_conv_workspace_size(shape) ||
      (type != FeatureType::kFloat32 && type != FeatureType::kFloat16)) {
    return cudaErrorInvalidValue;
  }
  if (shape.batch * shape.outputs * shape.out_height() * shape.out_width() == 0) {
    return cudaSuccess;
  }
  auto* ordered = static_cast<float*>(workspace);
  const int block_outputs = outputs_of_block(shape.outputs / shape.groups);
  const Arguments all{tensors, ordered, measure(shape, block_outputs)};
  return type == FeatureType::kFloat32
             ? launch_all<float>(all, shape, block_outputs, ordered, stream)
             : launch_all<__half>(all, shape, block_outputs, ordered, stream);
}

}  // namespace cn2
