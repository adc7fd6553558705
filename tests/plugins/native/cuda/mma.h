// Stands for NVIDIA's header where kernels are emulated: tiles of 16 x 16 x 16, half precision in, float out.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "../cuda_emulator.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major };

// A lane has the whole of a factor, and every 32nd element of a sum.
template <typename Use, int m, int n, int k, typename T, typename Layout = void>
struct fragment {
  static_assert(m == 16 && n == 16 && k == 16);
  float values[256];  // row by row
};

template <int m, int n, int k>
struct fragment<accumulator, m, n, k, float, void> {
  float own[8];
};

using emulated_sums = fragment<accumulator, 16, 16, 16, float, void>;

inline void check_address(const void* pointer, size_t step_bytes) {
  if (reinterpret_cast<uintptr_t>(pointer) % 32 != 0 || step_bytes % 16 != 0) {
    std::fprintf(stderr, "cuda_emulator: expected a tile aligned to 32 bytes, rows to 16\n");
    std::abort();
  }
}

inline void fill_fragment(emulated_sums& sums, float value) {
  for (float& one : sums.own) {
    one = value;
  }
}

template <typename Use, typename Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, __half, Layout>& factor, const __half* from,
                      unsigned step) {
  __syncwarp();
  check_address(from, step * sizeof(__half));
  for (unsigned i = 0; i < 16; ++i) {
    for (unsigned j = 0; j < 16; ++j) {
      const bool by_rows = std::is_same_v<Layout, row_major>;
      factor.values[by_rows ? 16 * i + j : 16 * j + i] = __half2float(from[i * step + j]);
    }
  }
}

template <typename A, typename B>
void mma_sync(emulated_sums& result, const fragment<matrix_a, 16, 16, 16, __half, A>& a,
              const fragment<matrix_b, 16, 16, 16, __half, B>& b, const emulated_sums& sums) {
  __syncwarp();
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned element = 32 * i + emulator::lane();
    float sum = sums.own[i];
    for (unsigned j = 0; j < 16; ++j) {
      sum += a.values[element / 16 * 16 + j] * b.values[16 * j + element % 16];
    }
    result.own[i] = sum;
  }
}

inline void store_matrix_sync(float* to, const emulated_sums& sums, unsigned step, layout_t) {
  __syncwarp();
  check_address(to, step * sizeof(float));
  for (unsigned i = 0; i < 8; ++i) {
    const unsigned element = 32 * i + emulator::lane();
    to[element / 16 * step + element % 16] = sums.own[i];
  }
}

}  // namespace nvcuda::wmma
