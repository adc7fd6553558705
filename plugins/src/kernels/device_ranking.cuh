// The best rows first, on the GPU: one block finds and sorts the next best of any number of scores.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda_launch.h"

namespace cn2 {

// A score and its row as one number; the better one is the smaller, and no two are equal (ranking.h).
using DeviceRank = uint64_t;

inline constexpr unsigned kRankThreads = 1024;  // of the block
inline constexpr unsigned kRankChunk = 2048;    // ranks that are sorted together
inline constexpr unsigned kRankDigit = 10;      // bits; 2^10 bins, one for each thread
inline constexpr DeviceRank kNoRank = ~DeviceRank{0};

// In the block's memory.
struct RankBlock {
  DeviceRank ranks[kRankChunk];  // best first, once found
  uint32_t bins[kRankThreads];
  uint32_t warp_sums[kRankThreads / kWarp];
  uint32_t count;
  uint32_t crossing, before_crossing, total;
};

__device__ inline DeviceRank device_rank(float score, int64_t row) {
  const uint32_t bits = __float_as_uint(__fadd_rn(score, 0.0f));  // -0 becomes 0
  const uint32_t descending = (bits >> 31) != 0 ? bits : ~bits & 0x7fffffffu;
  return static_cast<DeviceRank>(descending) << 32 | static_cast<uint32_t>(row);
}

// Where ranks come from: all scores of one picture; a NaN is never above the threshold.
struct RankedScores {
  const float* scores;
  int64_t size;  // below 2^32
  float threshold;

  __device__ int64_t count() const { return size; }
  __device__ DeviceRank rank_at(int64_t row) const {
    const float score = scores[row];
    return score > threshold ? device_rank(score, row) : kNoRank;
  }
};

// Or those above the threshold, which collect_ranks has found, in any order.
struct CollectedRanks {
  const DeviceRank* ranks;
  const uint32_t* found;

  __device__ int64_t count() const { return *found; }
  __device__ DeviceRank rank_at(int64_t index) const { return ranks[index]; }
};

// Call visit(rank) for each of the ranks behind `last`, shared out among the block's threads. 0 is before all.
// Several are read before the first is looked at, as one block waits long for each.
template <typename Source, typename Visit>
__device__ void visit_ranks(const Source& from, DeviceRank last, const Visit& visit) {
  constexpr int kAtOnce = 4;
  const int64_t count = from.count();
  for (int64_t begin = threadIdx.x; begin < count; begin += kAtOnce * kRankThreads) {
    DeviceRank ranks[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int64_t index = begin + i * int64_t{kRankThreads};
      ranks[i] = index < count ? from.rank_at(index) : kNoRank;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (ranks[i] > last && ranks[i] != kNoRank) {
        visit(ranks[i]);
      }
    }
  }
}

// The sum of the values of this and all lower threads. Barriers inside.
__device__ inline uint32_t sum_up_to(uint32_t value, RankBlock& block) {
  const unsigned lane = threadIdx.x % kWarp;
  for (unsigned step = 1; step < kWarp; step *= 2) {
    const uint32_t other = __shfl_up_sync(kAllLanes, value, step);
    value += lane >= step ? other : 0;
  }
  if (lane == kWarp - 1) {
    block.warp_sums[threadIdx.x / kWarp] = value;
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    uint32_t sum = block.warp_sums[lane];
    for (unsigned step = 1; step < kWarp; step *= 2) {
      const uint32_t other = __shfl_up_sync(kAllLanes, sum, step);
      sum += lane >= step ? other : 0;
    }
    block.warp_sums[lane] = sum;
  }
  __syncthreads();
  return threadIdx.x < kWarp ? value : value + block.warp_sums[threadIdx.x / kWarp - 1];
}

// How many ranks behind `last` begin with each digit after `prefix`, of those that begin with `prefix`.
template <typename Source>
__device__ void count_digits(const Source& from, DeviceRank last, DeviceRank prefix, unsigned shift,
                             unsigned digit, RankBlock& block) {
  block.bins[threadIdx.x] = 0;
  __syncthreads();
  visit_ranks(from, last, [&](DeviceRank rank) {
    const DeviceRank high = rank >> shift;
    if (high >> digit == prefix) {
      atomicAdd(&block.bins[high & ((1u << digit) - 1)], 1u);
    }
  });
  __syncthreads();
}

// A rank such that those behind `last` and not behind it fit into a chunk, and fill at least half of it where
// there are so many. Digit by digit from the highest: the chunk's end lies in one bin, and either the bins
// before it are enough, or that bin is looked at more closely.
template <typename Source>
__device__ DeviceRank find_cut(const Source& from, DeviceRank last, RankBlock& block) {
  DeviceRank prefix = 0;
  uint32_t before = 0;  // ranks that are certain to be in the chunk
  for (unsigned shift = 64; shift > 0;) {
    const unsigned digit = shift < kRankDigit ? shift : kRankDigit;
    shift -= digit;
    count_digits(from, last, prefix, shift, digit, block);
    const uint32_t own = block.bins[threadIdx.x];
    const uint32_t up_to = before + sum_up_to(own, block);
    if (up_to > kRankChunk && up_to - own <= kRankChunk) {
      block.crossing = threadIdx.x;
      block.before_crossing = up_to - own;
    }
    if (threadIdx.x == kRankThreads - 1) {
      block.total = up_to;
    }
    __syncthreads();
    if (block.total <= kRankChunk) {  // all that begin with the prefix; only in the first round
      return kNoRank;
    }
    const DeviceRank crossing = prefix << digit | block.crossing;
    before = block.before_crossing;
    if (before >= kRankChunk / 2 || shift == 0) {
      return (crossing << shift) - 1;
    }
    prefix = crossing;
    __syncthreads();
  }
  return kNoRank;
}

// Bitonic; `size` is a power of two up to kRankChunk. A thread and its warp's other ones exchange ranks among
// the same 64 places while the distance is at most 32, so they need not wait for the other warps.
__device__ inline void sort_ranks(DeviceRank* ranks, unsigned size) {
  const unsigned thread = threadIdx.x;
  __syncthreads();
  for (unsigned run = 2; run <= size; run *= 2) {
    for (unsigned distance = run / 2; distance > 0; distance /= 2) {
      if (distance >= kWarp) {
        __syncthreads();
      } else {
        __syncwarp();
      }
      const unsigned first = 2 * thread - (thread & (distance - 1));
      if (thread < size / 2) {
        const DeviceRank a = ranks[first];
        const DeviceRank b = ranks[first + distance];
        if ((a > b) == ((first & run) == 0)) {
          ranks[first] = b;
          ranks[first + distance] = a;
        }
      }
    }
  }
  __syncthreads();
}

// What find_next_ranks has found.
struct FoundRanks {
  uint32_t count;
  bool are_last;  // there are no more
};

// Put the next best ranks behind `last` into block.ranks, best first. Barriers inside; all threads get the
// same answer.
template <typename Source>
__device__ FoundRanks find_next_ranks(const Source& from, DeviceRank last, RankBlock& block) {
  const DeviceRank cut = from.count() <= kRankChunk ? kNoRank : find_cut(from, last, block);
  __syncthreads();
  if (threadIdx.x == 0) {
    block.count = 0;
  }
  __syncthreads();
  visit_ranks(from, last, [&](DeviceRank rank) {
    if (rank <= cut) {
      block.ranks[atomicAdd(&block.count, 1u)] = rank;
    }
  });
  __syncthreads();
  const uint32_t count = block.count;
  unsigned size = 2;
  while (size < count) {
    size *= 2;
  }
  for (unsigned place = count + threadIdx.x; place < size; place += kRankThreads) {
    block.ranks[place] = kNoRank;
  }
  sort_ranks(block.ranks, size);
  return {count, cut == kNoRank};
}

}  // namespace cn2
