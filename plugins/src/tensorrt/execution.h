// An execution context of TensorRT at one batch and canvas, and the CUDA graph of its runs. The
// device's context is current for all of it.
#pragma once

#include <array>
#include <cstdint>

#include "../cuda_objects.h"
#include "tensorrt/run.h"

namespace cn2 {

// Batch and canvas, on which all sizes depend.
struct TensorrtShape {
  int32_t batch = 0;  // 0: none
  Size canvas{};
  bool operator==(const TensorrtShape&) const = default;
};

// Results in device memory and on the host.
struct TensorrtLayout {
  int32_t rows = 0;                 // D
  std::array<size_t, 4> offsets{};  // of the outputs, in the contract's order
  size_t bytes = 0;
};

// Bytes that a tensor takes in device memory: whole steps of 256.
constexpr size_t tensor_bytes(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// Device memory that is read and written.
struct TensorrtAddresses {
  cuda::Pointer images = 0;
  cuda::Pointer sizes = 0;
  cuda::Pointer threshold = 0;
  cuda::Pointer outputs = 0;
};

class TensorrtExecution {
 public:
  // Activations go into `memory`, of as many bytes as the module's memory_size says; contexts whose
  // runs are in one order may share it. Throws Error (CN2_OUT_OF_MEMORY).
  TensorrtExecution(const TensorrtShared& shared, const cuda::DeviceBuffer& memory);
  ~TensorrtExecution();
  TensorrtExecution(const TensorrtExecution&) = delete;
  TensorrtExecution& operator=(const TensorrtExecution&) = delete;

  // What it is ready for.
  const TensorrtShape& shape() const { return shape_; }
  const TensorrtLayout& layout() const { return layout_; }

  // Ready for nothing: its addresses are of memory that goes. Nothing of it may be under way, here
  // and in set_shape.
  void forget();

  // Take another shape; it is ready when it is bound. Throw Error (CN2_INFERENCE_ERROR,
  // CN2_MODEL_ERROR: shapes that no graph of ours has).
  void set_shape(const TensorrtShape& shape, cuda::Handle stream);
  void bind(const TensorrtAddresses& addresses);

  // Put a run on a stream. Throws Error (CN2_INFERENCE_ERROR).
  void enqueue(cuda::Handle stream);

 private:
  void set_input_shapes(cuda::Handle stream);
  void read_output_shapes();
  void set_address(const char* tensor, cuda::Pointer address);
  bool capture(cuda::Handle stream);
  void check(int32_t succeeded, const cn2_tensorrt_why& why) const;

  const TensorrtShared& shared_;
  cn2_tensorrt_context* context_ = nullptr;
  TensorrtShape shape_{}, next_{};
  int32_t profile_ = 0;  // the one that a new context has
  TensorrtLayout layout_{};
  int64_t runs_ = 0;  // of this shape
  bool graphs_work_ = true;
  cuda::Graph graph_;  // of this shape; none before the third run
};

}  // namespace cn2
