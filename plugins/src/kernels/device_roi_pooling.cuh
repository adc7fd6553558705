// RoIAlign of one box by one block.
//
// The average over a bin's samples is a product of sums over rows and over columns (axis_taps.h), so the block first
// finds both axes' weights, then sums rows, reading along rows of the feature map, into its own memory, and
// there sums columns. A cell is so read from the feature map once a bin row, not once a sample.
#pragma once

#include "cuda_launch.h"
#include "device_axis_taps.cuh"
#include "device_numbers.cuh"
#include "pyramid_roi_align_cuda.h"

namespace cn2 {

inline constexpr unsigned kRoiThreads = 256;
// Boxes with more bins per side, with more weights on an axis, or with so many columns that not even one
// channel's sums have room, are pooled sample by sample, by another kernel.
inline constexpr int kPlannedBins = 32;
inline constexpr int kWeights = 512;
inline constexpr int kRowSums = 3072;

struct RoiLevel {
  const void* data;
  int height, width;
  float scale;  // cells per pixel
};

struct RoiArguments {
  const float* rois;
  void* pooled;
  RoiLevel levels[kMostCudaLevels];
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

struct RoiBlock {
  AxisWeights axes[2];  // y, x
  float row_sums[kRowSums];
};

__device__ inline float finite(float value) {
  return fabsf(value) <= 3.402823466e+38f ? value : 0.0f;
}

// A box, its level and its axes there.
struct Roi {
  int level;
  DeviceAxis y, x;
};

__device__ inline Roi read_roi(const RoiArguments& all, unsigned index) {
  const float* roi = all.rois + int64_t{4} * index;
  const float x0 = finite(roi[0]), y0 = finite(roi[1]), x1 = finite(roi[2]), y1 = finite(roi[3]);
  const float area = __fmul_rn(__fsub_rn(x1, x0), __fsub_rn(y1, y0));
  const float size = __fadd_rn(__fdiv_rn(__fsqrt_rn(area), all.canonical_size), 1e-8f);
  int level = 0;  // of NaN, too
  for (int i = 0; i < all.level_count - 1; ++i) {
    level += all.borders[i] <= size ? 1 : 0;
  }
  const RoiLevel& map = all.levels[level];
  const auto cells = [&](float pixels) { return __fsub_rn(__fmul_rn(pixels, map.scale), 0.5f); };
  return {level,
          {cells(y0), cells(y1), map.height, all.bins, all.sampling_ratio},
          {cells(x0), cells(x1), map.width, all.bins, all.sampling_ratio}};
}

__device__ inline void find_cells(const DeviceAxis& axis, int bin, AxisWeights& found) {
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

__device__ inline void place_weights(int bins, AxisWeights& found) {
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

__device__ inline void add_weights(const DeviceAxis& axis, int bin, AxisWeights& found) {
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

__device__ inline bool is_large(const Roi& roi) {
  return is_large(roi.y.bins, find_span(roi.y), find_span(roi.x));
}

// Find both axes' weights. Barriers inside.
__device__ inline void plan(const Roi& roi, RoiBlock& block) {
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
__device__ void sum_rows(const T* features, const RoiLevel& map, int count, const Divisor& bins,
                         const Divisor& columns, RoiBlock& block) {
  const AxisWeights& y = block.axes[0];
  const auto plane = static_cast<int64_t>(map.height) * map.width;
  const unsigned items = static_cast<unsigned>(count) * bins.divisor * columns.divisor;
  for (unsigned item = threadIdx.x; item < items; item += kRoiThreads) {
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
__device__ void sum_columns(int count, const Divisor& bins, unsigned columns, const RoiBlock& block,
                            T* pooled) {
  const AxisWeights& x = block.axes[1];
  const unsigned items = static_cast<unsigned>(count) * bins.divisor * bins.divisor;
  for (unsigned item = threadIdx.x; item < items; item += kRoiThreads) {
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
__device__ void pool_by_weights(const RoiLevel& map, const T* features, int bins, int count,
                                T* pooled, RoiBlock& block) {
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
__device__ void pool_by_samples(const RoiLevel& map, const T* features, const Roi& roi, int bins,
                                int count, T* pooled) {
  const auto plane = static_cast<int64_t>(map.height) * map.width;
  const int items = count * bins * bins;  // at most kChannels * kMostBins^2
  for (int item = static_cast<int>(threadIdx.x); item < items; item += kRoiThreads) {
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

}  // namespace cn2
