// A small part of CUDA on the CPU, for tests: the kernels' own sources compile against it as plain C++ (the
// headers in cuda/ stand for NVIDIA's), and each thread of a block is a fiber.
//
// A fiber runs until a barrier, so what two threads do between two barriers never overlaps in time; but blocks,
// and the threads of a block after each barrier, run in an order drawn from a seed, and warps that need not wait
// for each other get ahead by as much as it draws. A result that depends on
// the seed is a race. A block's memory begins filled with a pattern, and so does what cudaMalloc gives; writing
// past what was asked for is an error of the launch (under AddressSanitizer, so is reading). A barrier that some
// threads never reach is one too.
//
// Not there: memory that is not coherent, warps of other than all 32 threads, several streams (a launch is done
// when it returns).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <vector>

#define CN2_CUDA_EMULATOR 1

#define __global__
#define __device__
#define __host__
#define __shared__
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __forceinline__ inline

// ---- Types and the runtime's functions -------------------------------------------------------------------

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};

struct emulated_stream;
using cudaStream_t = emulated_stream*;
struct emulated_event;
using cudaEvent_t = emulated_event*;

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

struct float4 {
  float x, y, z, w;
};

inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };

cudaError_t cudaMalloc(void** pointer, size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);

// ---- Emulation -------------------------------------------------------------------------------------------

namespace emulator {

inline constexpr unsigned kMostShared = 48 * 1024;
inline constexpr unsigned char kPattern = 0xC5;  // of memory that nobody has written

// The order of blocks and threads from now on; 0: ascending.
void set_seed(uint64_t seed);

// Only check and record launches from now on; nothing is copied or written.
void set_dry_run(bool dry_run);
bool is_dry_run();

// Those since the last forget_launches, the first 64.
const std::vector<cudaLaunchConfig_t>& launches();
void forget_launches();

cudaError_t run(const cudaLaunchConfig_t& config, const std::function<void()>& kernel);

void wait_for_block();

// The values of all lanes of the calling thread's warp.
struct Lanes {
  uint64_t values[32];
};
Lanes exchange(uint64_t value, unsigned mask);

unsigned lane();

template <typename T>
uint64_t pack(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

template <typename T>
T shuffle(unsigned mask, T value, unsigned from) {
  const Lanes lanes = exchange(pack(value), mask);
  T result;
  std::memcpy(&result, &lanes.values[from % 32], sizeof result);
  return result;
}

}  // namespace emulator

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  return [&](Parameters... copies) {
    return emulator::run(*config, [&] { kernel(copies...); });
  }(static_cast<Arguments&&>(arguments)...);
}

// ---- In kernels ------------------------------------------------------------------------------------------

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace cn2 {
extern unsigned char cn2_block_memory[];
}

inline void __syncthreads() {
  emulator::wait_for_block();
}
inline void __syncwarp(unsigned mask = ~0u) {
  emulator::exchange(0, mask);
}

inline unsigned __ballot_sync(unsigned mask, bool predicate) {
  const emulator::Lanes lanes = emulator::exchange(predicate, mask);
  unsigned bits = 0;
  for (unsigned i = 0; i < 32; ++i) {
    bits |= static_cast<unsigned>(lanes.values[i]) << i;
  }
  return bits;
}

template <typename T>
T __shfl_sync(unsigned mask, T value, unsigned from) {
  return emulator::shuffle(mask, value, from);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned step) {
  const unsigned lane = emulator::lane();
  return emulator::shuffle(mask, value, lane < step ? lane : lane - step);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, unsigned bits) {
  return emulator::shuffle(mask, value, emulator::lane() ^ bits);
}

template <typename T>
T atomicAdd(T* place, T value) {
  const T before = *place;
  *place = before + value;
  return before;
}

inline unsigned atomicOr(unsigned* place, unsigned bits) {
  const unsigned before = *place;
  *place = before | bits;
  return before;
}

inline int __popc(unsigned bits) {
  return __builtin_popcount(bits);
}

inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}

inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// The emulated sources must be compiled with -ffp-contract=off.
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fsqrt_rn(float a) {
  return std::sqrt(a);
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline double __dsub_rn(double a, double b) {
  return a - b;
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline double __ddiv_rn(double a, double b) {
  return a / b;
}
inline int __double2int_rd(double a) {
  return static_cast<int>(std::floor(a));
}

template <typename T>
T min(T a, T b) {
  return b < a ? b : a;
}

template <typename T>
T max(T a, T b) {
  return a < b ? b : a;
}

using std::ceil;
using std::fabs;
using std::floor;
using std::fmax;
using std::fmin;
using std::isfinite;
using std::rint;

// ---- cuda_fp16.h -----------------------------------------------------------------------------------------

struct __half {
  uint16_t bits;
};

float __half2float(__half value);
__half __float2half_rn(float value);
