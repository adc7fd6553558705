// The emulator's device memory, which is the host's, and half precision.
#include <cstdlib>

#include "cuda_emulator.h"

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  *pointer = std::malloc(bytes == 0 ? 1 : bytes);
  if (*pointer == nullptr) {
    return cudaErrorMemoryAllocation;
  }
  if (!emulator::is_dry_run()) {
    std::memset(*pointer, emulator::kPattern, bytes);
  }
  return cudaSuccess;
}

cudaError_t cudaFree(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) {
  return cudaMalloc(pointer, bytes);
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) {
  return cudaFree(pointer);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t) {
  if (bytes != 0 && !emulator::is_dry_run()) {
    std::memcpy(to, from, bytes);
  }
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t) {
  if (bytes != 0 && !emulator::is_dry_run()) {
    std::memset(pointer, value, bytes);
  }
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}

float __half2float(__half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t exponent = value.bits >> 10 & 31u;
  const uint32_t fraction = value.bits & 1023u;
  float result;
  if (exponent == 0) {
    result = std::ldexp(static_cast<float>(fraction), -24);
  } else {
    const uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
    const uint32_t bits = wide << 23 | fraction << 13;
    std::memcpy(&result, &bits, sizeof bits);
  }
  return sign != 0 ? -result : result;
}

__half __float2half_rn(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const float size = std::fabs(value);
  if (std::isnan(value)) {
    return {static_cast<uint16_t>(0x7fffu)};
  }
  if (size >= 65520.0f) {  // what rounds to 65536
    return {static_cast<uint16_t>(sign | 0x7c00u)};
  }
  const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
  const auto steps = static_cast<uint32_t>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  const uint32_t half =
      size < 0x1p-14f ? steps : (static_cast<uint32_t>(exponent + 14) << 10) + steps;
  return {static_cast<uint16_t>(sign | half)};
}
