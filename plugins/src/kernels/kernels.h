// What every kernel shares: the status it returns, and the caller's threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cn2 {

enum class Status : int32_t {
  kOk = 0,
  kInvalidArgument = 1,  // a size or attribute that no call can have
  kOutOfMemory = 2,
};

// The caller's threads. `run` calls task(data, index) for each index below count, in any order and at
// once, and returns when all are done; where it is null, kernels call them one after the other.
struct ThreadPool {
  void (*run)(void* pool, void (*task)(void* data, size_t index), size_t count,
              void* data) = nullptr;
  void* pool = nullptr;
};

}  // namespace cn2
