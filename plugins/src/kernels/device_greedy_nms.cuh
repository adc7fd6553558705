// Greedy suppression by one block per picture (greedy_nms.h says why one pass over all classes is enough).
//
// The next best rows are sorted, then taken in tiles of 64: which of them a box that was kept earlier
// suppresses, and which of them overlap each other, is found by all threads at once; what is left of the tile
// is settled with 64-bit masks.
#pragma once

#include "device_boxes.cuh"
#include "device_ranking.cuh"

namespace cn2 {

inline constexpr unsigned kNmsTile = 64;  // rows; two warps

// In the block's memory.
struct NmsBlock {
  RankBlock ranking;
  DeviceBox boxes[kNmsTile];
  int32_t labels[kNmsTile];
  uint32_t suppressed[2];  // by boxes that were kept before; a bit for each row of the tile
  uint32_t overlapped[kNmsTile][2];  // which better rows of the tile would suppress this one
  uint32_t survivors[2];
};

// One picture's results. What is kept is read again by the block, so the pointers are plain.
struct NmsResult {
  float* boxes;      // [most, 4]
  float* scores;     // [most]
  int32_t* classes;  // [most], or null
  int64_t most;
};

__device__ inline uint32_t count_bits(const uint32_t* mask) {
  return static_cast<uint32_t>(__popc(mask[0]) + __popc(mask[1]));
}

// Bits of the tile's rows below `row`.
__device__ inline uint32_t bits_below(const uint32_t* mask, unsigned row) {
  const uint32_t low = row < kWarp ? mask[0] & ((1u << row) - 1) : mask[0];
  const uint32_t high = row < kWarp ? 0 : mask[1] & ((1u << (row - kWarp)) - 1);
  return static_cast<uint32_t>(__popc(low) + __popc(high));
}

template <typename Rows>
__device__ void load_tile(const Rows& rows, const DeviceRank* ranks, unsigned count,
                          NmsBlock& block) {
  const unsigned row = threadIdx.x;
  if (row < count) {
    const auto place = static_cast<uint32_t>(ranks[row]);
    block.boxes[row] = read_device_box(rows.box_of(place));
    block.labels[row] = rows.label_of(place);
  }
  if (row < 2) {
    block.suppressed[row] = 0;
  }
}

// Sixteen threads share the kept boxes for each row of the tile; a warp reads the same one for 32 rows.
template <typename Rows>
__device__ void suppress_by_kept(const Rows& rows, const NmsResult& result, int64_t kept,
                                 unsigned count, NmsBlock& block) {
  const unsigned row = threadIdx.x % kNmsTile;
  bool suppressed = false;
  if (row < count) {
    const DeviceBox box = block.boxes[row];
    for (int64_t i = threadIdx.x / kNmsTile; i < kept; i += kRankThreads / kNmsTile) {
      const int32_t label = result.classes != nullptr ? result.classes[i] : 0;
      suppressed |= label == block.labels[row] &&
                    overlaps(read_device_box(result.boxes + 4 * i), box, rows.iou_threshold);
    }
  }
  const uint32_t bits = __ballot_sync(kAllLanes, suppressed);
  if (threadIdx.x % kWarp == 0 && bits != 0) {
    atomicOr(&block.suppressed[row / kWarp], bits);
  }
}

template <typename Rows>
__device__ void compare_tile(const Rows& rows, unsigned count, NmsBlock& block) {
  const unsigned lane = threadIdx.x % kWarp;
  for (unsigned row = threadIdx.x / kWarp; row < count; row += kRankThreads / kWarp) {
    for (unsigned half = 0; half < 2; ++half) {
      const unsigned better = half * kWarp + lane;
      const bool above = better < row && block.labels[better] == block.labels[row] &&
                         overlaps(block.boxes[better], block.boxes[row], rows.iou_threshold);
      const uint32_t bits = __ballot_sync(kAllLanes, above);
      if (lane == 0) {
        block.overlapped[row][half] = bits;
      }
    }
  }
}

// Which rows of the tile stay. A row does if no better row that stays overlaps it: starting from all, the first
// i rows are right after i rounds, so it ends, and nearly always after a few. By one warp, two rows a lane.
__device__ inline void settle_tile(unsigned count, int64_t room, NmsBlock& block) {
  const unsigned lane = threadIdx.x % kWarp;
  bool candidate[2];
  uint32_t overlapped[2][2];
  uint32_t stay[2];
  for (unsigned half = 0; half < 2; ++half) {
    const unsigned row = half * kWarp + lane;
    candidate[half] = row < count && (block.suppressed[half] >> lane & 1u) == 0;
    overlapped[half][0] = row < count ? block.overlapped[row][0] : 0;
    overlapped[half][1] = row < count ? block.overlapped[row][1] : 0;
    stay[half] = __ballot_sync(kAllLanes, candidate[half]);
  }
  for (;;) {
    uint32_t next[2];
    for (unsigned half = 0; half < 2; ++half) {
      const uint32_t by = (overlapped[half][0] & stay[0]) | (overlapped[half][1] & stay[1]);
      next[half] = __ballot_sync(kAllLanes, candidate[half] && by == 0);
    }
    if (next[0] == stay[0] && next[1] == stay[1]) {
      break;
    }
    stay[0] = next[0];
    stay[1] = next[1];
  }
  for (unsigned half = 0; half < 2; ++half) {  // no more than there is room for, the best
    const unsigned row = half * kWarp + lane;
    const bool fits = (stay[half] >> lane & 1u) != 0 && bits_below(stay, row) < room;
    const uint32_t bits = __ballot_sync(kAllLanes, fits);
    if (lane == 0) {
      block.survivors[half] = bits;
    }
  }
}

template <typename Rows>
__device__ void keep_survivors(const Rows& rows, const DeviceRank* ranks, int64_t kept,
                               const NmsResult& result, const NmsBlock& block) {
  const unsigned row = threadIdx.x;
  if (row >= kNmsTile || (block.survivors[row / kWarp] >> row % kWarp & 1u) == 0) {
    return;
  }
  const auto place = static_cast<uint32_t>(ranks[row]);
  const int64_t at = kept + bits_below(block.survivors, row);
  const float* box = rows.box_of(place);
  for (int i = 0; i < 4; ++i) {
    result.boxes[4 * at + i] = box[i];
  }
  result.scores[at] = rows.scores[place];
  if (result.classes != nullptr) {
    result.classes[at] = block.labels[row];
  }
}

// Go through sorted rows; returns how many are kept by then.
template <typename Rows>
__device__ int64_t suppress_ranks(const Rows& rows, unsigned count, int64_t kept,
                                  const NmsResult& result, NmsBlock& block) {
  for (unsigned begin = 0; begin < count && kept < result.most; begin += kNmsTile) {
    const DeviceRank* ranks = block.ranking.ranks + begin;
    const unsigned in_tile = count - begin < kNmsTile ? count - begin : kNmsTile;
    load_tile(rows, ranks, in_tile, block);
    __syncthreads();
    suppress_by_kept(rows, result, kept, in_tile, block);
    compare_tile(rows, in_tile, block);
    __syncthreads();
    if (threadIdx.x < kWarp) {
      settle_tile(in_tile, result.most - kept, block);
    }
    __syncthreads();
    keep_survivors(rows, ranks, kept, result, block);
    kept += count_bits(block.survivors);
    __syncthreads();
  }
  return kept;
}

__device__ inline void clear_rest(int64_t kept, const NmsResult& result) {
  for (int64_t i = kept + threadIdx.x; i < result.most; i += kRankThreads) {
    for (int j = 0; j < 4; ++j) {
      result.boxes[4 * i + j] = 0;
    }
    result.scores[i] = 0;
    if (result.classes != nullptr) {
      result.classes[i] = 0;
    }
  }
}

// Rows has box_of(place), label_of(place), scores and iou_threshold. Returns how many were kept.
template <typename Source, typename Rows>
__device__ int64_t greedy_nms_block(const Source& source, const Rows& rows, const NmsResult& result,
                                    NmsBlock& block) {
  int64_t kept = 0;
  DeviceRank last = 0;
  for (;;) {
    const auto [count, are_last] = find_next_ranks(source, last, block.ranking);
    kept = suppress_ranks(rows, count, kept, result, block);
    if (kept == result.most || are_last) {
      break;
    }
    last = block.ranking.ranks[count - 1];
    __syncthreads();
  }
  clear_rest(kept, result);
  return kept;
}

}  // namespace cn2
