// A block pools one box for some channels. The average over a bin's samples is a product of sums over rows and
// over columns (axis_taps.h), so the block first finds both axes' weights, then sums rows, reading along rows
// of the feature map, into its own memory, and there sums columns. A cell is so read from the feature map
// once a bin row, not once a sample.
#include <cmath>

#include "cuda_launch.h"
#include "device_axis_taps.cuh"
#include "device_numbers.cuh"
#include "pyramid_roi_align_cuda.h"

namespace cn2 {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kChannels = 32;     // of a block
constexpr int kPlannedBins = 32;  // per side; more are pooled sample by sample, by another kernel,
constexpr int kWeights = 512;     // as are boxes that may have more weights on an axis,
constexpr int kRowSums = 3072;    // or so many columns that not even one channel's sums have room
constexpr int64_t kMostBins = 1024;
constexpr int64_t kMostSamples = 1024;
constexpr int64_t kMostCells = 1 << 24;  // a side of a feature map: cells are counted in floats

struct Level {
  const void* data;
  int height, width;
  float scale;  // cells per pixel
};

struct Arguments {
  const float* rois;
  void* pooled;
  Level levels[kMostCudaLevels];
  float borders[kMostCudaLevels - 1];
  int level_count;
  int channels, bins, sampling_ratio;
  float canonical_size;
  unsigned rois_of_picture;
};

// The weights of one axis: bin b sums `count` cells from `first` on, with weights from `offset` on.
struct AxisWeights {
  int first[kPlannedBins], count[kPlannedBins], offset[kPlannedBins];
  int total;
  int window, window_size;  // all cells that any bin sums
  float weights[kWeights];
};

struct Block {
  AxisWeights axes[2];  // y, x
  float row_sums[kRowSums];
};

__device__ float finite(float value) {
  return fabsf(value) <= 3.402823466e+38f ? value : 0.0f;
}

// A box, its level and its axes there.
struct Roi {
  int level;
  DeviceAxis y, x;
};

__device__ Roi read_roi(const Arguments& all, unsigned index) {
  const float* roi = all.rois + int64_t{4} * index;
  const float x0 = finite(roi[0]), y0 = finite(roi[1]), x1 = finite(roi[2]), y1 = finite(roi[3]);
  const float area = __fmul_rn(__fsub_rn(x1, x0), __fsub_rn(y1, y0));
  const float size = __fadd_rn(__fdiv_rn(__fsqrt_rn(area), all.canonical_size), 1e-8f);
  int level = 0;  // of NaN, too
  for (int i = 0; i < all.level_count - 1; ++i) {
    level += all.borders[i] <= size ? 1 : 0;
  }
  const Level& map = all.levels[level];
  const auto cells = [&](float pixels) { return __fsub_rn(__fmul_rn(pixels, map.scale), 0.5f); };
  return {level,
          {cells(y0), cells(y1), map.height, all.bins, all.sampling_ratio},
          {cells(x0), cells(x1), map.width, all.bins, all.sampling_ratio}};
}

__device__ void find_cells(const DeviceAxis& axis, int bin, AxisWeights& found) {
  const BinSamples samples = find_samples(axis, bin);
  int first = axis.cells;
  int last = -1;
  for (int i = samples.first; i < samples.end; ++i) {
    const Sample sample = read_sample(axis.cells, samples, i);
    if (sample.weight != 0 || sample.next_weight != 0) {
      first = min(first, sample.cell);
      last = max(last, sample.next_weight != 0 ? sample.cell + 1 : sample.cell);
    }
  }
  found.first[bin] = first;
  found.count[bin] = last < first ? 0 : last - first + 1;
}

__device__ void place_weights(int bins, AxisWeights& found) {
  int begin = 0x7fffffff;
  int end = 0;
  found.total = 0;
  for (int bin = 0; bin < bins; ++bin) {
    found.offset[bin] = found.total;
    found.total += found.count[bin];
    if (found.count[bin] > 0) {
      begin = min(begin, found.first[bin]);
      end = max(end, found.first[bin] + found.count[bin]);
    }
  }
  found.window = begin;
  found.window_size = found.total > 0 ? end - begin : 0;
}

__device__ void add_weights(const DeviceAxis& axis, int bin, AxisWeights& found) {
  const BinSamples samples = find_samples(axis, bin);
  float* weights = found.weights + found.offset[bin];
  for (int i = 0; i < found.count[bin]; ++i) {
    weights[i] = 0;
  }
  const int first = found.first[bin];
  for (int i = samples.first; i < samples.end; ++i) {
    const Sample sample = read_sample(axis.cells, samples, i);
    if (sample.weight != 0) {
      weights[sample.cell - first] += sample.weight;
    }
    if (sample.next_weight != 0) {
      weights[sample.cell - first + 1] += sample.next_weight;
    }
  }
}

// Whether a box is to be pooled without weights. A bin begins on the cell where the one before ends, or on
// the next one, and may end two cells further.
__host__ __device__ constexpr bool is_large(int bins, int height, int width) {
  return bins > kPlannedBins || (height > width ? height : width) + 3 * bins > kWeights ||
         bins * width > kRowSums;
}

__device__ bool is_large(const Roi& roi) {
  return is_large(roi.y.bins, find_span(roi.y), find_span(roi.x));
}

// Find both axes' weights. Barriers inside.
__device__ void plan(const Roi& roi, Block& block) {
  const int axis = static_cast<int>(threadIdx.x) / kPlannedBins;
  const int bin = static_cast<int>(threadIdx.x) % kPlannedBins;
  const DeviceAxis along = axis == 0 ? roi.y : roi.x;
  const bool has_bin = axis < 2 && bin < along.bins;
  if (has_bin) {
    find_cells(along, bin, block.axes[axis]);
  }
  __syncthreads();
  if (has_bin && bin == 0) {
    place_weights(along.bins, block.axes[axis]);
  }
  __syncthreads();
  if (has_bin) {
    add_weights(along, bin, block.axes[axis]);
  }
  __syncthreads();
}

// `features` begins at the first channel's window; row_sums [count, bins, columns].
template <typename T>
__device__ void sum_rows(const T* features, const Level& map, int count, const Divisor& bins,
                         const Divisor& columns, Block& block) {
  const AxisWeights& y = block.axes[0];
  const auto plane = static_cast<int64_t>(map.height) * map.width;
  const unsigned items = static_cast<unsigned>(count) * bins.divisor * columns.divisor;
  for (unsigned item = threadIdx.x; item < items; item += kThreads) {
    const unsigned row = columns.divide(item);
    const unsigned channel = bins.divide(row);
    const unsigned bin = row - channel * bins.divisor;
    const T* cell = features + channel * plane + int64_t{y.first[bin]} * map.width +
                    (item - row * columns.divisor);
    const float* weights = y.weights + y.offset[bin];
    float sum = 0;
    for (int i = 0; i < y.count[bin]; ++i, cell += map.width) {
      sum += weights[i] * to_float(*cell);
    }
    block.row_sums[item] = sum;
  }
}

template <typename T>
__device__ void sum_columns(int count, const Divisor& bins, unsigned columns, const Block& block,
                            T* pooled) {
  const AxisWeights& x = block.axes[1];
  const unsigned items = static_cast<unsigned>(count) * bins.divisor * bins.divisor;
  for (unsigned item = threadIdx.x; item < items; item += kThreads) {
    const unsigned row = bins.divide(item);
    const unsigned bin = item - row * bins.divisor;
    const float* sums = block.row_sums + row * columns + (x.first[bin] - x.window);
    const float* weights = x.weights + x.offset[bin];
    float sum = 0;
    for (int i = 0; i < x.count[bin]; ++i) {
      sum += weights[i] * sums[i];
    }
    pooled[item] = from_float<T>(sum);
  }
}

template <typename T>
__device__ void pool_by_weights(const Level& map, const T* features, int bins, int count, T* pooled,
                                Block& block) {
  const auto plane = static_cast<int64_t>(map.height) * map.width;
  const int columns = block.axes[1].window_size;
  const int at_once = min(count, kRowSums / (bins * columns));
  const Divisor by_bins(static_cast<unsigned>(bins));
  const Divisor by_columns(static_cast<unsigned>(columns));
  features += block.axes[1].window;
  for (int begin = 0; begin < count; begin += at_once) {
    const int now = min(at_once, count - begin);
    sum_rows(features + begin * plane, map, now, by_bins, by_columns, block);
    __syncthreads();
    sum_columns(now, by_bins, by_columns.divisor, block, pooled + int64_t{begin} * bins * bins);
    __syncthreads();
  }
}

// One row of cells, and the one below, at the samples of a bin.
template <typename T>
__device__ float sample_row(const T* cells, int below, const Sample& row, int columns,
                            const BinSamples& bin) {
  float sum = 0;
  for (int i = bin.first; i < bin.end; ++i) {
    const Sample at = read_sample(columns, bin, i);
    const int next = at.next_weight != 0 ? at.cell + 1 : at.cell;
    const float upper =
        at.weight * to_float(cells[at.cell]) + at.next_weight * to_float(cells[next]);
    const float lower = at.weight * to_float(cells[below + at.cell]) +
                        at.next_weight * to_float(cells[below + next]);
    sum += row.weight * upper + row.next_weight * lower;
  }
  return sum;
}

template <typename T>
__device__ void pool_by_samples(const Level& map, const T* features, const Roi& roi, int bins,
                                int count, T* pooled) {
  const auto plane = static_cast<int64_t>(map.height) * map.width;
  const int items = count * bins * bins;  // at most kChannels * kMostBins^2
  for (int item = static_cast<int>(threadIdx.x); item < items; item += kThreads) {
    const int row = item / bins;
    const T* channel = features + row / bins * plane;
    const BinSamples y = find_samples(roi.y, row % bins);
    const BinSamples x = find_samples(roi.x, item - row * bins);
    float sum = 0;
    for (int i = y.first; i < y.end && x.first < x.end; ++i) {
      const Sample at = read_sample(map.height, y, i);
      const int below = at.next_weight != 0 ? map.width : 0;
      sum += sample_row(channel + int64_t{at.cell} * map.width, below, at, map.width, x);
    }
    pooled[item] = from_float<T>(sum);
  }
}

// What a block works on.
template <typename T>
struct Work {
  Level map;
  const T* features;  // of its first channel
  T* pooled;
  int count;  // channels
};

template <typename T>
__device__ Work<T> find_work(const Arguments& all, const Roi& roi) {
  const Level& map = all.levels[roi.level];
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
__global__ void __launch_bounds__(kThreads) pool_by_weights_kernel(const Arguments all) {
  Block& block = shared_memory<Block>();
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
  for (int item = static_cast<int>(threadIdx.x); item < items; item += kThreads) {
    work.pooled[item] = from_float<T>(0);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1) pool_by_samples_kernel(const Arguments all) {
  const Roi roi = read_roi(all, blockIdx.x);
  if (is_large(roi)) {
    const Work<T> work = find_work<T>(all, roi);
    pool_by_samples(work.map, work.features, roi, all.bins, work.count, work.pooled);
  }
}

template <typename T>
cudaError_t launch_all(const Arguments& all, Launch at) {
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

Arguments gather(const float* rois, const CudaPyramidLevel* levels, size_t level_count,
                 const float* borders, const PyramidRoIAlignShape& shape, void* pooled) {
  Arguments all{};
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
  const Arguments all = gather(rois, levels, level_count, level_borders, shape, pooled);
  const Launch at{dim3(static_cast<unsigned>(boxes),
                       static_cast<unsigned>(ceil_div(shape.channels, kChannels))),
                  kThreads, sizeof(Block), stream};
  return type == FeatureType::kFloat32 ? launch_all<float>(all, at) : launch_all<__half>(all, at);
}

}  // namespace cn2
