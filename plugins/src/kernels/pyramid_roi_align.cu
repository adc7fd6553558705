// A block pools one box for some channels.
#include <cmath>

#include "device_roi_pooling.cuh"

namespace cn2 {
namespace {

constexpr int kChannels = 32;  // of a block
constexpr int64_t kMostBins = 1024;
constexpr int64_t kMostSamples = 1024;
constexpr int64_t kMostCells = 1 << 24;  // a side of a feature map: cells are counted in floats

// What a block works on.
template <typename T>
struct Work {
  RoiLevel map;
  const T* features;  // of its first channel
  T* pooled;
  int count;  // channels
};

template <typename T>
__device__ Work<T> find_work(const RoiArguments& all, const Roi& roi) {
  const RoiLevel& map = all.levels[roi.level];
  const int channel = static_cast<int>(blockIdx.y) * kChannels;
  const int64_t picture = blockIdx.x / all.rois_of_picture;
  return {
      map,
      static_cast<const T*>(map.data) + (picture * all.channels + channel) * map.height * map.width,
      static_cast<T*>(all.pooled) +
          (int64_t{blockIdx.x} * all.channels + channel) * all.bins * all.bins,
      min(kChannels, all.channels - channel)};
}

template <typename T>
__global__ void __launch_bounds__(kRoiThreads) pool_by_weights_kernel(const RoiArguments all) {
  RoiBlock& block = shared_memory<RoiBlock>();
  const Roi roi = read_roi(all, blockIdx.x);
  if (is_large(roi)) {
    return;
  }
  plan(roi, block);
  const Work<T> work = find_work<T>(all, roi);
  if (block.axes[0].total > 0 && block.axes[1].total > 0) {
    pool_by_weights(work.map, work.features, all.bins, work.count, work.pooled, block);
    return;
  }
  const int items = work.count * all.bins * all.bins;
  for (int item = static_cast<int>(threadIdx.x); item < items; item += kRoiThreads) {
    work.pooled[item] = from_float<T>(0);
  }
}

template <typename T>
__global__ void __launch_bounds__(kRoiThreads, 1) pool_by_samples_kernel(const RoiArguments all) {
  const Roi roi = read_roi(all, blockIdx.x);
  if (is_large(roi)) {
    const Work<T> work = find_work<T>(all, roi);
    pool_by_samples(work.map, work.features, roi, all.bins, work.count, work.pooled);
  }
}

template <typename T>
cudaError_t launch_all(const RoiArguments& all, Launch at) {
  bool any_large = false;
  for (int i = 0; i < all.level_count; ++i) {
    any_large |= is_large(all.bins, all.levels[i].height, all.levels[i].width);
  }
  const cudaError_t error = launch(at, pool_by_weights_kernel<T>, all);
  at.shared = 0;
  return error == cudaSuccess && any_large ? launch(at, pool_by_samples_kernel<T>, all) : error;
}

bool are_possible(const CudaPyramidLevel* levels, size_t count, const float* borders,
                  const PyramidRoIAlignShape& shape) {
  for (size_t i = 0; i < count; ++i) {
    const CudaPyramidLevel& level = levels[i];
    if (level.stride < 1 || level.height > kMostCells || level.width > kMostCells ||
        !is_tensor({shape.batch, shape.channels, level.height, level.width})) {
      return false;
    }
  }
  for (size_t i = 0; i + 1 < count; ++i) {
    if (std::isnan(borders[i]) || (i > 0 && borders[i] < borders[i - 1])) {
      return false;
    }
  }
  return true;
}

RoiArguments gather(const float* rois, const CudaPyramidLevel* levels, size_t level_count,
                    const float* borders, const PyramidRoIAlignShape& shape, void* pooled) {
  RoiArguments all{};
  all.rois = rois;
  all.pooled = pooled;
  all.level_count = static_cast<int>(level_count);
  for (size_t i = 0; i < level_count; ++i) {
    all.levels[i] = {levels[i].data, static_cast<int>(levels[i].height),
                     static_cast<int>(levels[i].width),
                     static_cast<float>(1.0 / static_cast<double>(levels[i].stride))};
  }
  for (size_t i = 0; i + 1 < level_count; ++i) {
    all.borders[i] = borders[i];
  }
  all.channels = static_cast<int>(shape.channels);
  all.bins = static_cast<int>(shape.output_size);
  all.sampling_ratio = static_cast<int>(shape.sampling_ratio);
  all.canonical_size = shape.canonical_size;
  all.rois_of_picture = static_cast<unsigned>(shape.rois);
  return all;
}

}  // namespace

bool is_possible_on_cuda(const CudaPyramidLevel* levels, size_t level_count,
                         const float* level_borders, const PyramidRoIAlignShape& shape) noexcept {
  const int64_t bins = shape.output_size;
  return level_count >= 1 && level_count <= kMostCudaLevels && bins >= 1 && bins <= kMostBins &&
         shape.sampling_ratio >= 0 && shape.sampling_ratio <= kMostSamples &&
         shape.canonical_size > 0 && std::isfinite(shape.canonical_size) &&
         is_tensor({shape.batch, shape.rois, 4}) &&
         is_tensor({shape.batch, shape.rois, shape.channels, bins, bins}) &&
         shape.batch * shape.rois <= kMostGridX && shape.channels <= kChannels * kMostGridYZ &&
         are_possible(levels, level_count, level_borders, shape);
}

size_t pyramid_roi_align_workspace_size(const PyramidRoIAlignShape&) noexcept {
  return 0;
}

cudaError_t pyramid_roi_align_cuda(const float* rois, const CudaPyramidLevel* levels,
                                   size_t level_count, const float* level_borders,
                                   const PyramidRoIAlignShape& shape, FeatureType type,
                                   void* pooled, void*, size_t, cudaStream_t stream) noexcept {
  if (!is_possible_on_cuda(levels, level_count, level_borders, shape) ||
      (type != FeatureType::kFloat32 && type != FeatureType::kFloat16)) {
    return cudaErrorInvalidValue;
  }
  const int64_t boxes = shape.batch * shape.rois;
  if (boxes == 0 || shape.channels == 0) {
    return cudaSuccess;
  }
  const RoiArguments all = gather(rois, levels, level_count, level_borders, shape, pooled);
  const Launch at{dim3(static_cast<unsigned>(boxes),
                       static_cast<unsigned>(ceil_div(shape.channels, kChannels))),
                  kRoiThreads, sizeof(RoiBlock), stream};
  return type == FeatureType::kFloat32 ? launch_all<float>(all, at) : launch_all<__half>(all, at);
}

}  // namespace cn2
