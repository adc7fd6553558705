// The entries of cuda_entries.h that only an emulated library has.
#include "cuda_emulator.h"
#include "cuda_entries.h"

void cn2_cuda_set_seed(uint64_t seed) {
  emulator::set_seed(seed);
}

float cn2_cuda_half_to_float(uint16_t half) {
  return __half2float(__half{half});
}

uint16_t cn2_cuda_float_to_half(float value) {
  return __float2half_rn(value).bits;
}
