#include "collect_ranks.h"
#include "cuda_launch.h"
#include "device_ranking.cuh"

namespace cn2 {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kScoresOfThread = 16;
constexpr int64_t kScores = kThreads * kScoresOfThread;  // of a block
constexpr int64_t kAlignment = 256;

struct Block {
  DeviceRank ranks[kScores];
  uint32_t count;
  uint32_t first;  // place of this block's ranks among the picture's
};

int64_t tiles_of(int64_t count) {
  return ceil_div(count, kScores);
}

int64_t counters_size(int64_t batch) {
  return ceil_div(batch * static_cast<int64_t>(sizeof(uint32_t)), kAlignment) * kAlignment;
}

__device__ void find_ranks(const ScoreTable& table, int64_t picture, int64_t first, Block& block) {
  const float threshold = table.threshold != nullptr ? *table.threshold : table.threshold_value;
  const float* scores = table.scores + picture * table.count;
  float found[kScoresOfThread];
#pragma unroll
  for (int i = 0; i < kScoresOfThread; ++i) {
    const int64_t row = first + i * int64_t{kThreads} + threadIdx.x;
    found[i] = row < table.count ? scores[row] : threshold;
  }
#pragma unroll
  for (int i = 0; i < kScoresOfThread; ++i) {
    if (found[i] > threshold) {
      const int64_t row = first + i * int64_t{kThreads} + threadIdx.x;
      block.ranks[atomicAdd(&block.count, 1u)] = device_rank(found[i], row);
    }
  }
}

// The order of the ranks depends on how threads and blocks run; what becomes of them does not.
__global__ void __launch_bounds__(kThreads)
    collect_ranks_kernel(const ScoreTable table, const CollectedTable collected, int64_t tiles) {
  Block& block = shared_memory<Block>();
  if (threadIdx.x == 0) {
    block.count = 0;
  }
  __syncthreads();
  const int64_t picture = blockIdx.x / tiles;
  find_ranks(table, picture, blockIdx.x % tiles * kScores, block);
  __syncthreads();
  if (threadIdx.x == 0) {
    block.first = atomicAdd(&collected.found[picture], block.count);
  }
  __syncthreads();
  DeviceRank* ranks = collected.ranks + picture * table.count + block.first;
  for (uint32_t i = threadIdx.x; i < block.count; i += kThreads) {
    ranks[i] = block.ranks[i];
  }
}

}  // namespace

bool can_collect(int64_t batch, int64_t count) {
  return are_few(count) || batch <= kMostGridX / tiles_of(count);
}

size_t collect_workspace_size(int64_t batch, int64_t count) {
  return are_few(count) ? 0
                        : static_cast<size_t>(counters_size(batch)) +
                              sizeof(DeviceRank) * static_cast<size_t>(batch * count);
}

CollectedTable find_collected(void* workspace, int64_t batch) {
  auto* bytes = static_cast<unsigned char*>(workspace);
  return {reinterpret_cast<DeviceRank*>(bytes + counters_size(batch)),
          reinterpret_cast<uint32_t*>(bytes)};
}

cudaError_t collect_ranks(const ScoreTable& table, const CollectedTable& collected,
                          cudaStream_t stream) {
  const auto bytes = static_cast<size_t>(table.batch) * sizeof(uint32_t);
  const cudaError_t error = cudaMemsetAsync(collected.found, 0, bytes, stream);
  if (error != cudaSuccess) {
    return error;
  }
  const int64_t tiles = tiles_of(table.count);
  const Launch at{dim3(static_cast<unsigned>(table.batch * tiles)), kThreads, sizeof(Block),
                  stream};
  return launch(at, collect_ranks_kernel, table, collected, tiles);
}

}  // namespace cn2
