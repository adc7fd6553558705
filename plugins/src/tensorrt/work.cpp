#include "tensorrt/work.h"

#include <algorithm>
#include <cstring>

#include "error.h"

namespace cn2 {
namespace {

constexpr size_t kMostExecutions = 4;  // where each has a graph

size_t sizes_bytes(int32_t batch) {
  return tensor_bytes(2 * sizeof(int32_t) * static_cast<size_t>(batch));
}

}  // namespace

TensorrtWork::TensorrtWork(const TensorrtShared& shared) : shared_(shared) {
  if (shared.kernels != nullptr) {
    preprocessor_.emplace(*shared.kernels);
  }
  activations_.reserve(shared.module.memory_size(shared.engine));
  executions_.push_back(std::make_unique<TensorrtExecution>(shared, activations_));
}

TensorrtWork::~TensorrtWork() {
  abandon();
}

uint8_t* TensorrtWork::canvas_memory(size_t slot, size_t bytes) {
  slots_[slot].canvases.reserve(bytes);
  return slots_[slot].canvases.data();
}

void TensorrtWork::begin(size_t slot, const EngineInput& input) {
  TensorrtExecution& execution = prepare({input.batch, {input.height, input.width}});
  Slot& own = slots_[slot];
  own.layout = execution.layout();
  own.outputs.reserve(own.layout.bytes);
  const auto record = [&](const cuda::Event& event) {
    cuda::check(cuda::driver().record(event.get(), stream_.get()), CN2_INFERENCE_ERROR,
                "cuEventRecord");
  };
  stream_.follow(input.cuda_stream);
  record(own.start);
  fill(own, input);
  record(own.filled);
  execution.enqueue(stream_.get());
  cuda::check(cuda::driver().download(own.outputs.data(), outputs_.address(), own.layout.bytes,
                                      stream_.get()),
              CN2_INFERENCE_ERROR, "results to the host");
  record(own.end);
}

EngineOutput TensorrtWork::finish(size_t slot) {
  const Slot& own = slots_[slot];
  cuda::check(cuda::driver().await(own.end.get()), CN2_INFERENCE_ERROR, shared_.path, ": ",
              shared_.name, " failed on cuda:", shared_.device);
  EngineOutput output;
  output.rows = own.layout.rows;
  const uint8_t* base = own.outputs.data();
  const auto& offsets = own.layout.offsets;
  output.num_detections = reinterpret_cast<const int32_t*>(base + offsets[0]);
  output.boxes = reinterpret_cast<const float*>(base + offsets[1]);
  output.scores = reinterpret_cast<const float*>(base + offsets[2]);
  output.classes = reinterpret_cast<const int32_t*>(base + offsets[3]);
  const auto elapsed = [](const cuda::Event& from, const cuda::Event& to) {
    float ms = 0;
    cuda::check(cuda::driver().elapsed(&ms, from.get(), to.get()), CN2_INFERENCE_ERROR,
                "cuEventElapsedTime");
    return ms;
  };
  output.device_preprocess_ms = elapsed(own.start, own.filled);
  output.device_inference_ms = elapsed(own.filled, own.end);
  return output;
}

void TensorrtWork::abandon() {
  cuda::driver().synchronize(stream_.get());
}

// The execution that is ready for a shape: one of those that are there, or the oldest anew.
TensorrtExecution& TensorrtWork::prepare(const TensorrtShape& shape) {
  const auto found = std::find_if(executions_.begin(), executions_.end(),
                                  [&](const auto& one) { return one->shape() == shape; });
  if (found != executions_.end()) {
    std::rotate(executions_.begin(), found, found + 1);
    return *executions_.front();
  }
  cuda::check(cuda::driver().synchronize(stream_.get()), CN2_INFERENCE_ERROR, shared_.path, ": ",
              shared_.name, " failed on cuda:", shared_.device);  // runs use what is changed now
  TensorrtExecution& execution = take_oldest();
  execution.set_shape(shape, stream_.get());
  reserve_memory(execution, shape);
  execution.bind({canvases_.address(), small_.address(),
                  small_.address() + sizes_bytes(shape.batch), outputs_.address()});
  return execution;
}

// One for another shape, in front: that of none, a new one, or that of the shape that was not used for
// longest. Where no graphs are made there is one.
TensorrtExecution& TensorrtWork::take_oldest() {
  const auto find = [&] {
    return std::find_if(executions_.begin(), executions_.end(),
                        [](const auto& one) { return one->shape() == TensorrtShape{}; });
  };
  const size_t most = shared_.manifest.canvas.fixed ? kMostExecutions : 1;
  if (find() == executions_.end() && executions_.size() < most) {
    executions_.push_back(std::make_unique<TensorrtExecution>(shared_, activations_));
  }
  const auto free = find();
  const auto taken = free != executions_.end() ? free : executions_.end() - 1;
  std::rotate(executions_.begin(), taken, taken + 1);
  return *executions_.front();
}

void TensorrtWork::reserve_memory(const TensorrtExecution& execution, const TensorrtShape& shape) {
  const size_t canvases = static_cast<size_t>(shape.batch) * canvas_bytes(shape.canvas);
  const size_t small = sizes_bytes(shape.batch) + sizeof(float);
  const size_t outputs = execution.layout().bytes;
  if (canvases > canvases_.size() || small > small_.size() || outputs > outputs_.size()) {
    for (const auto& one : executions_) {
      one->forget();
    }
  }
  canvases_.reserve(canvases);
  small_.reserve(small);
  outputs_.reserve(outputs);
}

void TensorrtWork::fill(Slot& slot, const EngineInput& input) {
  fill_small(slot, input);
  if (input.canvases == nullptr) {
    preprocessor_->run(input, canvases_.address(), stream_.get());
    return;
  }
  const size_t bytes = static_cast<size_t>(input.batch) * canvas_bytes({input.height, input.width});
  cuda::check(cuda::driver().upload(canvases_.address(), input.canvases, bytes, stream_.get()),
              CN2_INFERENCE_ERROR, "canvases to the device");
}

void TensorrtWork::fill_small(Slot& slot, const EngineInput& input) {
  const size_t offset = sizes_bytes(input.batch);
  slot.small.reserve(offset + sizeof(float));
  std::memcpy(slot.small.data(), input.picture_sizes,
              2 * sizeof(int32_t) * static_cast<size_t>(input.batch));
  const float threshold = input.score_threshold.value_or(shared_.manifest.score_threshold);
  std::memcpy(slot.small.data() + offset, &threshold, sizeof(threshold));
  cuda::check(cuda::driver().upload(small_.address(), slot.small.data(), offset + sizeof(float),
                                    stream_.get()),
              CN2_INFERENCE_ERROR, "picture sizes to the device");
}

}  // namespace cn2
