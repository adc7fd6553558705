#include "ranking.h"

#include <algorithm>

#include "tasks.h"

namespace cn2 {
namespace {

constexpr size_t kBlock = 64;  // scores that are looked at together

// The start of the first block, from `begin` on, with a score above the floor; `count` if there is none.
// What is left over behind the last whole block counts as having one.
CN2_FOR_EACH_PROCESSOR size_t find_block(const float* scores, size_t begin, size_t count,
                                         float floor) {
  for (; begin + kBlock <= count; begin += kBlock) {
    int above = 0;
    for (size_t i = 0; i < kBlock; ++i) {
      above |= scores[begin + i] > floor;
    }
    if (above != 0) {
      return begin;
    }
  }
  return begin;
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
  for (size_t begin = 0; (begin = find_block(scores, begin, count, floor)) < count;
       begin += kBlock) {
    for (size_t row = begin; row < std::min(begin + kBlock, count); ++row) {
      const Rank rank = rank_of(scores[row], row);
      if (scores[row] > floor && rank > last) {
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
