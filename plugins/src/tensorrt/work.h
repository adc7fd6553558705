// The buffers, stream and CUDA graph of one context, and its runs. The device's context is current
// for all of it.
//
// A run uploads canvases, or resizes pictures that are in device memory; then TensorRT runs; then the
// results come back, all on a stream of its own, which waits for the caller's. Device buffers are
// there once, as a stream keeps the order; what the host fills and reads is there once for each slot.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "../cuda_objects.h"
#include "tensorrt/run.h"

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
  // Results in device memory and on the host.
  struct Layout {
    int32_t rows = 0;                 // D
    std::array<size_t, 4> offsets{};  // of the outputs, in the contract's order
    size_t bytes = 0;
  };

  struct Slot {
    cuda::PinnedBuffer canvases, small, outputs;
    cuda::Event start, filled, end;
    Layout layout{};
  };

  // Batch and canvas, on which all sizes depend.
  struct Shape {
    int32_t batch = 0;
    Size canvas{};
    bool operator==(const Shape&) const = default;
  };

  void prepare(const Shape& shape);
  void set_shapes(const Shape& shape);
  void read_output_shapes(int32_t batch);
  void reserve_memory(const Shape& shape);
  void fill(Slot& slot, const EngineInput& input);
  void fill_small(Slot& slot, const EngineInput& input);
  void enqueue();
  bool capture();
  void set_address(const char* tensor, cuda::Pointer address);
  void check(int32_t succeeded, const cn2_tensorrt_why& why) const;

  const TensorrtShared& shared_;
  cn2_tensorrt_context* context_ = nullptr;
  cuda::Stream stream_;
  std::array<Slot, kSlots> slots_;
  std::optional<CudaPreprocessor> preprocessor_;
  cuda::DeviceBuffer canvases_, small_, outputs_;  // small: picture sizes, threshold

  Shape shape_{};        // that the context is set to; batch 0: none
  int32_t profile_ = 0;  // the one that a new context has
  Layout layout_{};
  int64_t runs_ = 0;  // of this shape
  bool graphs_work_ = true;
  cuda::Graph graph_;  // of this shape; none before the third run
};

}  // namespace cn2
