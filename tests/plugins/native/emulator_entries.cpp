// The entries of cuda_entries.h that only an emulated library has.
#include <algorithm>

#include "cuda_emulator.h"
#include "cuda_entries.h"

void cn2_cuda_set_seed(uint64_t seed) {
  emulator::set_seed(seed);
}

void cn2_cuda_set_dry_run(int32_t dry_run) {
  emulator::set_dry_run(dry_run != 0);
}

int64_t cn2_cuda_take_launches(int64_t (*launches)[5], int64_t capacity) {
  const auto count = static_cast<int64_t>(emulator::launches().size());
  for (int64_t i = 0; i < count && i < capacity; ++i) {
    const cudaLaunchConfig_t& one = emulator::launches()[static_cast<size_t>(i)];
    const int64_t numbers[5] = {one.gridDim.x, one.gridDim.y, one.gridDim.z, one.blockDim.x,
                                static_cast<int64_t>(one.dynamicSmemBytes)};
    std::copy_n(numbers, 5, launches[i]);
  }
  emulator::forget_launches();
  return count;
}

float cn2_cuda_half_to_float(uint16_t half) {
  return __half2float(__half{half});
}

uint16_t cn2_cuda_float_to_half(float value) {
  return __float2half_rn(value).bits;
}
