// The ranks of the scores above a threshold, found by the whole GPU: where there are so many scores that the
// one block that suppresses a picture's boxes would take long to read them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace cn2 {

// Up to so many scores of a picture the block reads them itself.
inline constexpr int64_t kFewScores = 16384;

// [batch, count] scores, and the threshold: one number in device memory, or, where that is null, a value.
struct ScoreTable {
  const float* scores;
  int64_t batch, count;
  const float* threshold;
  float threshold_value;
};

struct CollectedTable {
  uint64_t* ranks;  // [batch, count]
  uint32_t* found;  // [batch]: how many ranks of each picture there are
};

constexpr bool are_few(int64_t count) {
  return count <= kFewScores;
}

// Whether a grid has enough blocks. Always so for few scores.
bool can_collect(int64_t batch, int64_t count);

// 0 for few scores.
size_t collect_workspace_size(int64_t batch, int64_t count);

// Where in the workspace they will be.
CollectedTable find_collected(void* workspace, int64_t batch);

cudaError_t collect_ranks(const ScoreTable& table, const CollectedTable& collected,
                          cudaStream_t stream);

}  // namespace cn2
