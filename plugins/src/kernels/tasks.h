// What the kernels' own files share: sizes that can exist, tasks on the caller's threads, code for
// several processors.
#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "kernels.h"

// Before a function's definition: compile it for plain x86-64 and for AVX2 with FMA; which one runs is
// decided when the library is loaded. Elsewhere: nothing.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 12 && !defined(__SANITIZE_ADDRESS__)
#define CN2_FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define CN2_FOR_EACH_PROCESSOR
#endif

namespace cn2 {

// Whether a float tensor of these dimensions can exist: none is negative, and its bytes can be counted.
inline bool can_exist(std::initializer_list<int64_t> dimensions) noexcept {
  int64_t bytes = sizeof(float);
  for (const int64_t dimension : dimensions) {
    if (dimension < 0) {
      return false;
    }
    const bool fits = dimension == 0 || bytes <= std::numeric_limits<int64_t>::max() / dimension;
    if (!fits) {
      return false;
    }
    bytes *= dimension;
  }
  return true;
}

// Call task(index) for each index below count on the caller's threads. What a task throws can only be
// that memory has run out.
template <typename Task>
Status run_tasks(const ThreadPool& threads, size_t count, const Task& task) noexcept {
  struct Shared {
    const Task& task;
    std::atomic<bool> failed;
  } shared{task, false};
  const auto call = [](void* data, size_t index) {
    Shared& all = *static_cast<Shared*>(data);
    try {
      all.task(index);
    } catch (...) {
      all.failed = true;
    }
  };
  if (threads.run != nullptr && count > 1) {
    threads.run(threads.pool, call, count, &shared);
  } else {
    for (size_t index = 0; index < count; ++index) {
      call(&shared, index);
    }
  }
  return shared.failed ? Status::kOutOfMemory : Status::kOk;
}

}  // namespace cn2
