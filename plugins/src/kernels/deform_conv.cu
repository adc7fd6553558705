// A product of the weights and of sampled columns that are never in memory as a whole: a block makes some outputs
// of 64 pixels, and takes 16 channels at one tap at a time: it samples them into its own memory, reads the
// weights that go with them, and adds their products. Where a tap lies and how its four cells count is
// found once for all channels. A first kernel puts the weights into the order in which they are read.
#include "device_products.cuh"

namespace cn2 {
namespace {

template <typename T, int kOutputs>
union Block {
  Stage<T, kOutputs> stage;
  typename Products<T, kOutputs>::Memory sums;
};

template <typename T, int kOutputs>
__device__ void add_tap(const DeformArguments& all, const Place& place, int tap,
                        Stage<T, kOutputs>& stage, Products<T, kOutputs>& products) {
  const Geometry& size = all.size;
  const auto plane = static_cast<int64_t>(size.height) * size.width;
  const int begin = place.group * size.group_channels;
  const int end = begin + size.group_channels;
  const T* picture = static_cast<const T*>(all.tensors.x) + place.picture * size.channels * plane;
  const T* weights = static_cast<const T*>(all.weights) + (int64_t{place.group} * size.taps + tap) *
                                                              size.group_channels *
                                                              size.group_outputs;
  int offset_group = -1;
  for (int channel = begin, count = 0; channel < end; channel += count) {
    if (channel / size.offset_channels != offset_group) {
      offset_group = channel / size.offset_channels;
      place_tap<T>(all, place, tap, offset_group, stage.corners);
      __syncthreads();
    }
    const int last = min(end, (offset_group + 1) * size.offset_channels);
    count = min(kDepth, last - channel);
    sample_columns(picture + channel * plane, plane, count, stage.corners, stage.columns);
    read_weights<T, kOutputs>(weights + int64_t{channel - begin} * size.group_outputs, count,
                              size.group_outputs, place.first_output, stage.weights);
    __syncthreads();
    products.add(stage);
    __syncthreads();
  }
}

template <typename T, int kOutputs>
__global__ void __launch_bounds__(kDeformThreads, 2) deform_conv_kernel(const DeformArguments all) {
  Block<T, kOutputs>& block = shared_memory<Block<T, kOutputs>>();
  const Place place = find_place(all.size, kOutputs);
  Products<T, kOutputs> products;
  for (int tap = 0; tap < all.size.taps; ++tap) {
    add_tap<T, kOutputs>(all, place, tap, block.stage, products);
  }
  products.write(find_target<T>(all, place), block.sums);
}

// [outputs, group_channels, taps] -> [groups, taps, group_channels, group_outputs]
template <typename T>
__global__ void __launch_bounds__(kDeformThreads)
    order_weights_kernel(const DeformArguments all, T* ordered, int64_t count) {
  const Geometry& size = all.size;
  const int64_t item = int64_t{blockIdx.x} * kDeformThreads + threadIdx.x;
  if (item < count) {
    const int64_t row = item / size.group_outputs;
    const int64_t output = item % size.group_outputs;
    const int64_t channel = row % size.group_channels;
    const int64_t group_tap = row / size.group_channels;
    const int64_t group = group_tap / size.taps;
    const int64_t from =
        ((group * size.group_outputs + output) * size.group_channels + channel) * size.taps +
        group_tap % size.taps;
    ordered[item] = static_cast<const T*>(all.tensors.weight)[from];
  }
}

int64_t weight_count(const DeformConvShape& shape) {
  return shape.outputs * (shape.channels / shape.groups) * shape.kernel_height * shape.kernel_width;
}

int outputs_of_block(int64_t group_outputs) {
  for (const int outputs : {16, 32, 64}) {
    if (group_outputs <= outputs) {
      return outputs;
    }
  }
  return 128;
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
cudaError_t launch_blocks(const DeformArguments& all, const DeformConvShape& shape,
                          cudaStream_t stream) {
  const auto x = static_cast<unsigned>(shape.batch * all.size.pixel_tiles);
  const auto y = static_cast<unsigned>(shape.groups * all.size.output_tiles);
  return launch({dim3(x, y), kDeformThreads, sizeof(Block<T, kOutputs>), stream},
                deform_conv_kernel<T, kOutputs>, all);
}

template <typename T>
cudaError_t launch_all(const DeformArguments& all, const DeformConvShape& shape, int block_outputs,
                       void* ordered, cudaStream_t stream) {
  const int64_t count = weight_count(shape);
  if (count > 0) {
    const auto blocks = static_cast<unsigned>(ceil_div(count, kDeformThreads));
    const cudaError_t error = launch({dim3(blocks), kDeformThreads, 0, stream},
                                     order_weights_kernel<T>, all, static_cast<T*>(ordered), count);
    if (error != cudaSuccess) {
      return error;
    }
  }
  switch (block_outputs) {
    case 16:
      return launch_blocks<T, 16>(all, shape, stream);
    case 32:
      return launch_blocks<T, 32>(all, shape, stream);
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
         weight_count(shape) <= kMostGridX * kDeformThreads &&
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
  const int block_outputs = outputs_of_block(shape.outputs / shape.groups);
  const DeformArguments all{tensors, workspace, measure(shape, block_outputs)};
  return type == FeatureType::kFloat32
             ? launch_all<float>(all, shape, block_outputs, workspace, stream)
             : launch_all<__half>(all, shape, block_outputs, workspace, stream);
}

}  // namespace cn2
