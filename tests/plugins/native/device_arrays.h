// Arrays of the host and their copies on the device, for the entries of the tests.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <vector>

#include "cuda_timing.h"

namespace cn2::testing {

// A call's arrays on the device: copied there, and the results back. The first error stays.
class DeviceArrays {
 public:
  DeviceArrays() = default;
  DeviceArrays(const DeviceArrays&) = delete;
  DeviceArrays& operator=(const DeviceArrays&) = delete;
  ~DeviceArrays() {
    for (void* pointer : owned_) {
      cudaFree(pointer);
    }
  }

  // Null stays null.
  template <typename T>
  T* in(const T* host, size_t count) {
    return host == nullptr ? nullptr : static_cast<T*>(copy_in(host, count * sizeof(T)));
  }

  template <typename T>
  T* out(T* host, size_t count) {
    T* device = in(host, count);
    if (device != nullptr) {
      results_.push_back({host, device, count * sizeof(T)});
    }
    return device;
  }

  void* workspace(size_t bytes) { return allocate(bytes); }

  // Call `launch` (stream -> cudaError_t), time it if that was asked for, and copy the results back; the first
  // error of all.
  template <typename Launch>
  int run(const Launch& launch) {
    if (error_ == cudaSuccess) {
      keep(timing().repeats > 0 ? time_in_graph(launch) : launch(nullptr));
    }
    for (const Result& result : results_) {
      if (error_ == cudaSuccess) {
        keep(cudaMemcpyAsync(result.host, result.device, result.bytes, cudaMemcpyDeviceToHost,
                             nullptr));
      }
    }
    keep(cudaStreamSynchronize(nullptr));
    return static_cast<int>(error_);
  }

 private:
  struct Result {
    void* host;
    const void* device;
    size_t bytes;
  };

  void keep(cudaError_t error) { error_ = error_ == cudaSuccess ? error : error_; }

  void* allocate(size_t bytes) {
    void* device = nullptr;
    keep(cudaMalloc(&device, bytes == 0 ? 1 : bytes));
    owned_.push_back(device);
    return device;
  }

  void* copy_in(const void* host, size_t bytes) {
    void* device = allocate(bytes);
    if (error_ == cudaSuccess) {
      keep(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, nullptr));
    }
    return device;
  }

  cudaError_t error_ = cudaSuccess;
  std::vector<void*> owned_;
  std::vector<Result> results_;
};

}  // namespace cn2::testing
