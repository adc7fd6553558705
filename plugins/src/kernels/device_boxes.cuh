// The IoU of docs/operators.md on the GPU: each step rounded to float32, whatever the compiler is told
// about fusing products and sums, so that decisions are those of the CPU to the last bit.
#pragma once

#include <cuda_runtime.h>

namespace cn2 {

struct DeviceBox {
  float x0, y0, x1, y1, area;
};

// A box without area, or with a NaN, becomes one that overlaps nothing.
__device__ inline DeviceBox read_device_box(const float* box) {
  const float x0 = box[0], y0 = box[1], x1 = box[2], y1 = box[3];
  const float width = __fsub_rn(x1, x0);
  const float height = __fsub_rn(y1, y0);
  if (width > 0 && height > 0) {
    return {x0, y0, x1, y1, __fmul_rn(width, height)};
  }
  constexpr float kFar = 3.402823466e+38f;
  return {kFar, kFar, -kFar, -kFar, 0};
}

// threshold >= 0. Most pairs do not touch, and cost no division.
__device__ inline bool overlaps(const DeviceBox& a, const DeviceBox& b, float threshold) {
  const float width = __fsub_rn(fminf(a.x1, b.x1), fmaxf(a.x0, b.x0));
  const float height = __fsub_rn(fminf(a.y1, b.y1), fmaxf(a.y0, b.y0));
  if (!(width > 0 && height > 0)) {
    return false;
  }
  const float shared = __fmul_rn(width, height);
  const float all = __fsub_rn(__fadd_rn(a.area, b.area), shared);
  return __fdiv_rn(shared, all) > threshold;
}

}  // namespace cn2
