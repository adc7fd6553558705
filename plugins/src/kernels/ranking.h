// The best rows first: descending score, equal ones by ascending row.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace cn2 {

// A score and its row as one number; the better one is the smaller.
using Rank = uint64_t;

inline Rank rank_of(float score, size_t row) noexcept {
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 becomes 0
  const bool negative = bits >> 31 != 0;
  const uint32_t descending = negative ? bits : ~bits & 0x7fffffffu;
  return static_cast<Rank>(descending) << 32 | static_cast<uint32_t>(row);
}

inline size_t row_of(Rank rank) noexcept {
  return static_cast<uint32_t>(rank);
}

// Ranks have room for so many rows.
inline constexpr int64_t kMostRanked = int64_t{1} << 32;

// The best `limit` of the scores that are above the threshold and rank behind `last`, best first. Fewer
// are found only where there are no more. `last` 0 is before all. NaN is never above a threshold.
void find_best(const float* scores, size_t count, float threshold, Rank last, size_t limit,
               std::vector<Rank>& found);

}  // namespace cn2
