// RoIAlign along one axis on the GPU; axis_taps.cpp says what is computed. Whether a sample counts is decided
// from positions rounded as there, whatever the compiler is told about fusing.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace cn2 {

// One axis of a box on a feature map, all in cells.
struct DeviceAxis {
  float start, end;  // half a cell shifted
  int cells, bins;
  int sampling_ratio;
};

__device__ inline float add(float a, float b) {
  return __fadd_rn(a, b);
}
__device__ inline float subtract(float a, float b) {
  return __fsub_rn(a, b);
}
__device__ inline float multiply(float a, float b) {
  return __fmul_rn(a, b);
}
__device__ inline float divide(float a, float b) {
  return __fdiv_rn(a, b);
}
__device__ inline double add(double a, double b) {
  return __dadd_rn(a, b);
}
__device__ inline double subtract(double a, double b) {
  return __dsub_rn(a, b);
}
__device__ inline double multiply(double a, double b) {
  return __dmul_rn(a, b);
}
__device__ inline double divide(double a, double b) {
  return __ddiv_rn(a, b);
}

// Samples per bin as a float; 0 where there are none.
__device__ inline float count_samples(const DeviceAxis& axis) {
  constexpr float kMostSamples = 1 << 30;
  const float bin_size = divide(subtract(axis.end, axis.start), static_cast<float>(axis.bins));
  const float samples =
      axis.sampling_ratio == 0 ? ceilf(bin_size) : static_cast<float>(axis.sampling_ratio);
  return axis.cells > 0 && samples >= 1 && samples <= kMostSamples ? samples : 0;
}

// At least as many cells as all bins together reach.
__device__ inline int find_span(const DeviceAxis& axis) {
  const float low = fminf(axis.start, axis.end) - 3;
  const float high = fmaxf(axis.start, axis.end) + 3;
  const auto most = static_cast<float>(axis.cells);
  return static_cast<int>(ceilf(fminf(fmaxf(high, 0.0f), most)) -
                          floorf(fminf(fmaxf(low, 0.0f), most)));
}

// The samples of one bin, among which are all that lie inside. Positions are float32 numbers, kept as such
// in doubles, unless the box is so far away that float32 is too coarse.
struct BinSamples {
  double start, size;  // of the bin
  float samples;       // of the bin, inside or not
  float weight;        // 1 / samples
  int first, end;      // [first, end) of them
  bool wide;           // positions are doubles
};

__device__ inline void find_range(const DeviceAxis& axis, BinSamples& bin) {
  bin.first = 0;
  bin.end = axis.sampling_ratio;
  if (axis.sampling_ratio == 0) {
    constexpr double kSlack = 2;
    const double step = bin.size / bin.samples;
    const double first = floor((-1 - bin.start) / step) - kSlack;
    const double end = ceil((axis.cells - bin.start) / step) + kSlack;
    bin.first = static_cast<int>(fmin(fmax(first, 0.0), static_cast<double>(bin.samples)));
    bin.end = static_cast<int>(fmin(fmax(end, 0.0), static_cast<double>(bin.samples)));
  }
}

__device__ inline BinSamples find_samples(const DeviceAxis& axis, int index) {
  constexpr float kMostFloat = 1 << 20;
  BinSamples bin{};
  bin.samples = count_samples(axis);
  if (bin.samples == 0) {
    return bin;
  }
  bin.weight = divide(1.0f, bin.samples);
  bin.wide = fmaxf(fabsf(axis.start), fabsf(axis.end)) > kMostFloat;
  if (bin.wide) {
    const double start = axis.start;
    bin.size =
        divide(subtract(static_cast<double>(axis.end), start), static_cast<double>(axis.bins));
    bin.start = add(start, multiply(static_cast<double>(index), bin.size));
  } else {
    const float size = divide(subtract(axis.end, axis.start), static_cast<float>(axis.bins));
    bin.size = size;
    bin.start = add(axis.start, multiply(static_cast<float>(index), size));
  }
  find_range(axis, bin);
  return bin;
}

// Between two cells; the second has weight 0 at the last one. No weight at all: the sample is outside.
struct Sample {
  int cell;
  float weight, next_weight;
};

template <typename Position>
__device__ Sample sample_at(int cells, const BinSamples& bin, int index) {
  const Position middle = add(static_cast<Position>(index), Position{0.5});
  const Position along =
      divide(multiply(middle, static_cast<Position>(bin.size)), static_cast<Position>(bin.samples));
  Position at = add(static_cast<Position>(bin.start), along);
  if (!(at >= -1 && at <= static_cast<Position>(cells))) {
    return {0, 0, 0};
  }
  at = at < 0 ? 0 : at;
  const int low = static_cast<int>(at);
  if (low >= cells - 1) {
    return {cells - 1, bin.weight, 0};
  }
  const auto high_part = static_cast<float>(subtract(at, static_cast<Position>(low)));
  return {low, multiply(bin.weight, subtract(1.0f, high_part)), multiply(bin.weight, high_part)};
}

__device__ inline Sample read_sample(int cells, const BinSamples& bin, int index) {
  return bin.wide ? sample_at<double>(cells, bin, index) : sample_at<float>(cells, bin, index);
}

}  // namespace cn2
