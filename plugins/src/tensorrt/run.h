// One context's runs: buffers on both sides, the stream, the CUDA graph.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../cuda_objects.h"
#include "../cuda_preprocess.h"
#include "../engine.h"
#include "module.h"
#include "tensorrt/profiles.h"

namespace cn2 {

// What all contexts of an engine share.
struct TensorrtShared {
  std::string path;  // of the plan
  std::string name;  // "TensorRT 10.14.1"
  Manifest manifest;
  int device;
  cuda::PrimaryContext context;
  const cn2_tensorrt_module& module;
  const cn2_cuda_module* kernels;  // null: pictures are resized on the host
  cn2_tensorrt_engine* engine = nullptr;
  std::vector<Profile> profiles{};
  bool takes_threshold = false;

  TensorrtShared(std::string plan, std::string library, const Manifest& says, int number,
                 const cn2_tensorrt_module& functions);
  ~TensorrtShared();
  TensorrtShared(const TensorrtShared&) = delete;
  TensorrtShared& operator=(const TensorrtShared&) = delete;
};

class TensorrtRun final : public EngineRun {
 public:
  explicit TensorrtRun(const TensorrtShared& shared);
  ~TensorrtRun() override;

  size_t slots() const override { return kSlots; }
  uint8_t* canvas_memory(size_t slot, size_t bytes) override;
  bool takes_device_pictures() const override { return preprocessor_.has_value(); }
  void begin(size_t slot, const EngineInput& input) override;
  EngineOutput finish(size_t slot) override;
  void abandon() noexcept override;

 private:
  static constexpr size_t kSlots = 2;

  // What a run in a slot needs on the host.
  struct Slot {
    cuda::PinnedBuffer canvases, small, outputs;
    cuda::Event start, filled, end;
    EngineInput input;
  };

  // Batch and canvas, on which the context's state depends.
  struct Shape {
    int32_t batch = 0;
    Size canvas{};
    bool operator==(const Shape&) const = default;
  };

  void prepare(const Shape& shape, cuda::Handle stream);
  void set_shapes(const Shape& shape);
  void read_outputs(const Shape& shape);
  void reserve(const Shape& shape);
  void set_addresses();
  void fill(Slot& slot, cuda::Handle stream);
  void enqueue(cuda::Handle stream);
  void capture();
  void download(Slot& slot, cuda::Handle stream);
  void synchronize(cuda::Handle stream);

  // Throw Error unless a call of the module succeeded.
  void check(int32_t succeeded, const cn2_tensorrt_why& why) const;

  const TensorrtShared& shared_;
  std::optional<cuda::Current> current_;  // while a function runs
  cn2_tensorrt_context* context_ = nullptr;
  std::unique_ptr<Slot[]> slots_;
  std::optional<cuda::Stream> own_stream_;
  cuda::Handle last_stream_ = nullptr;
  cuda::DeviceBuffer canvases_, small_, outputs_;
  std::optional<CudaPreprocessor> preprocessor_;
  Shape shape_{};
  int32_t profile_ = 0;
  int32_t rows_ = 0;                          // D
  std::array<size_t, 5> output_offsets_{};    // of the four outputs, and the end of the last
  size_t sizes_bytes_ = 0;
  int64_t runs_of_shape_ = 0;
  bool graphs_work_ = true;
  std::optional<cuda::Graph> graph_;
};

}  // namespace cn2
