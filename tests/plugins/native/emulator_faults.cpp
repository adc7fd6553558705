// Kernels with planted faults: what the emulator must find.
#include "cuda_entries.h"
#include "cuda_launch.h"

namespace {

constexpr unsigned kThreads = 64;

// Each thread reads its neighbour's number; right only with a barrier in between.
__global__ void shift_kernel(int32_t* numbers, bool with_barrier) {
  int32_t* shared = &cn2::shared_memory<int32_t>();
  const unsigned thread = threadIdx.x;
  shared[thread] = numbers[thread];
  if (with_barrier) {
    __syncthreads();
  }
  numbers[thread] = shared[(thread + 1) % kThreads];
}

__global__ void some_wait_kernel(int32_t*, bool) {
  if (threadIdx.x < kThreads / 2) {
    __syncthreads();
  }
}

__global__ void part_of_warp_kernel(int32_t*, bool) {
  if (threadIdx.x % 2 == 0) {
    __syncwarp();
  }
}

__global__ void past_the_end_kernel(int32_t* numbers, bool) {
  (&cn2::shared_memory<int32_t>())[kThreads] = numbers[0];
}

__global__ void sum_kernel(int32_t* numbers, bool) {
  int32_t value = numbers[threadIdx.x];
  for (unsigned step = 16; step > 0; step /= 2) {
    value += __shfl_xor_sync(cn2::kAllLanes, value, step);
  }
  numbers[threadIdx.x] = value;
}

}  // namespace

int32_t cn2_cuda_run_fault(int32_t fault, int32_t* numbers) {
  void (*const kernels[])(int32_t*, bool) = {shift_kernel,        shift_kernel,
                                             some_wait_kernel,    part_of_warp_kernel,
                                             past_the_end_kernel, sum_kernel};
  const cn2::Launch at{dim3(1), kThreads, kThreads * sizeof(int32_t), nullptr};
  return cn2::launch(at, kernels[fault], numbers, fault == 0);
}

int32_t cn2_cuda_launch_empty(uint32_t x, uint32_t y, uint32_t threads, uint64_t shared) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(x, y);
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared;
  return cudaLaunchKernelEx(&config, some_wait_kernel, nullptr, false);
}
