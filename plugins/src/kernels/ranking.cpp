#include "ranking.h"

#include <algorithm>
#include <array>

#include "tasks.h"

namespace cn2 {
namespace {

constexpr size_t kBlock = 32;  // scores that are compared together, a bit each

constexpr auto kBits = [] {
  std::array<uint32_t, kBlock> bits{};
  for (size_t i = 0; i < kBlock; ++i) {
    bits[i] = 1u << i;
  }
  return bits;
}();

struct Block {
  size_t begin;
  uint32_t above;  // a bit for each score above the floor
};

// The first block, from `begin` on, with a score above the floor; it begins at `count` if there is none.
CN2_FOR_EACH_PROCESSOR Block find_block(const float* scores, size_t begin, size_t count,
                                        float floor) {
  for (; begin + kBlock <= count; begin += kBlock) {
    uint32_t above = 0;
    for (size_t i = 0; i < kBlock; ++i) {
      above |= scores[begin + i] > floor ? kBits[i] : 0;
    }
    if (above != 0) {
      return {begin, above};
    }
  }
  uint32_t above = 0;
  for (size_t i = begin; i < count; ++i) {
    above |= scores[i] > floor ? kBits[i - begin] : 0;
  }
  return {above != 0 ? begin : count, above};
}

void keep_best(std::vector<Rank>& ranks, size_t limit) {
  std::nth_element(ranks.begin(), ranks.begin() + static_cast<ptrdiff_t>(limit - 1), ranks.end());
  ranks.resize(limit);
}

}  // namespace

void find_best(const float* scores, size_t count, float threshold, Rank last, size_t limit,
               std::vector<Rank>& found) {
  found.clear();
  const size_t room = limit + std::max<size_t>(limit, 256);
  float floor = threshold;
  for (size_t next = 0; next < count;) {
    const auto [begin, above] = find_block(scores, next, count, floor);
    next = begin + kBlock;
    for (uint32_t rest = above; rest != 0; rest &= rest - 1) {
      const size_t row = begin + static_cast<size_t>(std::countr_zero(rest));
      const Rank rank = rank_of(scores[row], row);
      if (rank > last) {
        found.push_back(rank);
      }
    }
    if (found.size() >= room) {  // later rows that only equal the worst of the best rank behind it
      keep_best(found, limit);
      floor = scores[row_of(found.back())];
    }
  }
  if (found.size() > limit) {
    keep_best(found, limit);
  }
  std::sort(found.begin(), found.end());
}

}  // namespace cn2
