// What the launchers of the CUDA kernels share: launching, grid limits, sizes of tensors.
//
// Every launcher only puts kernels into the stream: it allocates nothing, waits for nothing and reads no
// device memory, so it may be captured into a CUDA graph. cudaErrorInvalidValue: a size or attribute that no
// call can have; any other error is the launch's own.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>

namespace cn2 {

inline constexpr int64_t kMostGridX = 0x7fffffff;  // blocks
inline constexpr int64_t kMostGridYZ = 65535;
inline constexpr unsigned kWarp = 32;       // threads
inline constexpr unsigned kAllLanes = ~0u;  // of a warp

constexpr int64_t ceil_div(int64_t value, int64_t by) {
  return (value + by - 1) / by;
}

// Whether a tensor of these dimensions can exist: none is negative, and its bytes, at most 8 an element,
// can be counted.
constexpr bool is_tensor(std::initializer_list<int64_t> dimensions) {
  int64_t bytes = 8;
  for (const int64_t dimension : dimensions) {
    if (dimension < 0 ||
        (dimension > 0 && bytes > std::numeric_limits<int64_t>::max() / dimension)) {
      return false;
    }
    bytes *= dimension;
  }
  return true;
}

// Where and how large to launch.
struct Launch {
  dim3 grid;
  unsigned threads;  // of a block
  size_t shared;     // bytes of its memory
  cudaStream_t stream;
};

template <typename... Parameters, typename... Arguments>
cudaError_t launch(const Launch& at, void (*kernel)(Parameters...), Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = at.grid;
  config.blockDim = dim3(at.threads);
  config.dynamicSmemBytes = at.shared;
  config.stream = at.stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Arguments&&>(arguments)...);
}

#if defined(__CUDACC__) || defined(CN2_CUDA_EMULATOR)
// The block's own memory, as the one struct or array that a kernel keeps there.
template <typename T>
__device__ T& shared_memory() {
  extern __shared__ __align__(128) unsigned char cn2_block_memory[];
  return *reinterpret_cast<T*>(cn2_block_memory);
}
#endif

}  // namespace cn2
