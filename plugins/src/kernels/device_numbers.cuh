// fp32 and fp16 elements, of which all is computed in fp32, and division by numbers known at the launch.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace cn2 {

__device__ inline float to_float(float value) {
  return value;
}
__device__ inline float to_float(__half value) {
  return __half2float(value);
}

template <typename T>
__device__ T from_float(float value);

template <>
__device__ inline float from_float<float>(float value) {
  return value;
}

template <>
__device__ inline __half from_float<__half>(float value) {
  return __float2half_rn(value);
}

// Division of numbers below 2^32 / divisor, by a multiplication.
struct Divisor {
  unsigned divisor, factor;

  __host__ __device__ explicit Divisor(unsigned by)
      : divisor(by), factor(by > 1 ? 0xffffffffu / by + 1 : 0) {}

  __device__ unsigned divide(unsigned number) const {
    return divisor > 1 ? __umulhi(number, factor) : number;
  }
};

}  // namespace cn2
