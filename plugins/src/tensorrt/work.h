// The buffers and the stream of one context, and its runs. The device's context is current for all
// of it.
//
// A run uploads canvases, or resizes pictures that are in device memory; then TensorRT runs; then the
// results come back, all on a stream of its own, which waits for the caller's. Device buffers are
// there once, as a stream keeps the order; what the host fills and reads is there once for each slot.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "../cuda_objects.h"
#include "tensorrt/execution.h"

namespace cn2 {

class TensorrtWork {
 public:
  static constexpr size_t kSlots = 2;

  explicit TensorrtWork(const TensorrtShared& shared);
  ~TensorrtWork();
  TensorrtWork(const TensorrtWork&) = delete;
  TensorrtWork& operator=(const TensorrtWork&) = delete;

  // As in EngineRun.
  uint8_t* canvas_memory(size_t slot, size_t bytes);
  void begin(size_t slot, const EngineInput& input);
  EngineOutput finish(size_t slot);
  void abandon();

 private:
  struct Slot {
    cuda::PinnedBuffer canvases, small, outputs;
    cuda::Event start, filled, end;
    TensorrtLayout layout{};
  };

  TensorrtExecution& prepare(const TensorrtShape& shape);
  TensorrtExecution& take_oldest();
  void reserve_memory(const TensorrtExecution& execution, const TensorrtShape& shape);
  void fill(Slot& slot, const EngineInput& input);
  void fill_small(Slot& slot, const EngineInput& input);

  const TensorrtShared& shared_;
  cuda::Stream stream_;
  std::array<Slot, kSlots> slots_;
  std::optional<CudaPreprocessor> preprocessor_;
  cuda::DeviceBuffer canvases_, small_, outputs_;  // small: picture sizes, threshold
  cuda::DeviceBuffer activations_;

  // Of other shapes each, the last used first. A graph is of one, which must not change with it.
  std::vector<std::unique_ptr<TensorrtExecution>> executions_;
};

}  // namespace cn2
