#include "tensorrt/work.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "contract.h"
#include "error.h"
#include "log.h"

namespace cn2 {
namespace {

constexpr size_t kAlignment = 256;  // bytes, of tensors in device memory
constexpr int64_t kRunsBeforeGraph = 2;

size_t align(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

size_t sizes_bytes(int32_t batch) {
  return align(2 * sizeof(int32_t) * static_cast<size_t>(batch));
}

cn2_tensorrt_shape make_shape(std::initializer_list<int64_t> sides) {
  cn2_tensorrt_shape shape{};
  for (const int64_t side : sides) {
    shape.sides[shape.count++] = side;
  }
  return shape;
}

std::vector<int64_t> sides_of(const cn2_tensorrt_shape& shape) {
  const int32_t count = std::clamp(shape.count, 0, CN2_TENSORRT_MAX_DIMENSIONS);
  return {shape.sides, shape.sides + count};
}

}  // namespace

TensorrtWork::TensorrtWork(const TensorrtShared& shared) : shared_(shared) {
  if (shared.kernels != nullptr) {
    preprocessor_.emplace(*shared.kernels);
  }
  cn2_tensorrt_why why{};
  context_ = shared.module.create_context(shared.engine, &why);
  if (context_ == nullptr) {
    fail(CN2_OUT_OF_MEMORY, shared.path, ": ", shared.name, " makes no context (",
         shorten(why.text), ")");
  }
}

TensorrtWork::~TensorrtWork() {
  abandon();
  shared_.module.destroy_context(context_);
}

uint8_t* TensorrtWork::canvas_memory(size_t slot, size_t bytes) {
  slots_[slot].canvases.reserve(bytes);
  return slots_[slot].canvases.data();
}

void TensorrtWork::begin(size_t slot, const EngineInput& input) {
  prepare({input.batch, {input.height, input.width}});
  Slot& own = slots_[slot];
  own.layout = layout_;
  own.outputs.reserve(layout_.bytes);
  const auto record = [&](const cuda::Event& event) {
    cuda::check(cuda::driver().record(event.get(), stream_.get()), CN2_INFERENCE_ERROR,
                "cuEventRecord");
  };
  stream_.follow(input.cuda_stream);
  record(own.start);
  fill(own, input);
  record(own.filled);
  enqueue();
  cuda::check(
      cuda::driver().download(own.outputs.data(), outputs_.address(), layout_.bytes, stream_.get()),
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

// Whatever depends on the sizes, where they are not those of the last run.
void TensorrtWork::prepare(const Shape& shape) {
  if (shape == shape_) {
    return;
  }
  cuda::check(cuda::driver().synchronize(stream_.get()), CN2_INFERENCE_ERROR, shared_.path, ": ",
              shared_.name, " failed on cuda:", shared_.device);  // runs use what is changed now
  graph_.reset();
  shape_ = {};
  runs_ = 0;
  set_shapes(shape);
  read_output_shapes(shape.batch);
  reserve_memory(shape);
  shape_ = shape;
}

void TensorrtWork::set_shapes(const Shape& shape) {
  cn2_tensorrt_why why{};
  const int32_t profile = choose_profile(shared_.profiles, shape.batch, shape.canvas);
  if (profile != profile_) {
    check(shared_.module.set_profile(context_, profile, stream_.get(), &why), why);
    profile_ = profile;
  }
  const auto set = [&](const char* tensor, const cn2_tensorrt_shape& sides) {
    check(shared_.module.set_shape(context_, tensor, &sides, &why), why);
  };
  set(kInputNames[0], make_shape({shape.batch, shape.canvas.height, shape.canvas.width, 3}));
  set(kInputNames[1], make_shape({shape.batch, 2}));
}

// D, and where each output lies.
void TensorrtWork::read_output_shapes(int32_t batch) {
  const auto shape_of = [&](const char* tensor) {
    cn2_tensorrt_shape shape{};
    shared_.module.output_shape(context_, tensor, &shape);
    return sides_of(shape);
  };
  const std::vector<int64_t> scores = shape_of(kOutputNames[2]);
  const int64_t rows = scores.size() == 2 ? scores[1] : -1;
  const std::array<std::vector<int64_t>, 4> wanted = {
      {{batch}, {batch, rows, 4}, {batch, rows}, {batch, rows}}};
  size_t offset = 0;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const std::vector<int64_t> found = shape_of(kOutputNames[i]);
    if (found != wanted[i] || rows < 0 || rows > INT32_MAX) {
      fail(CN2_MODEL_ERROR, shared_.path, ": expected ", kOutputNames[i], " of shape ",
           shape_text(wanted[i]), ", got ", shape_text(found), "; build it again");
    }
    layout_.offsets[i] = offset;
    size_t bytes = sizeof(float);  // of each, as int32_t has as many
    for (const int64_t side : found) {
      bytes *= static_cast<size_t>(side);
    }
    offset += align(bytes);
  }
  layout_.bytes = offset;
  layout_.rows = static_cast<int32_t>(rows);
}

void TensorrtWork::reserve_memory(const Shape& shape) {
  canvases_.reserve(static_cast<size_t>(shape.batch) * canvas_bytes(shape.canvas));
  small_.reserve(sizes_bytes(shape.batch) + sizeof(float));
  outputs_.reserve(layout_.bytes);
  set_address(kInputNames[0], canvases_.address());
  set_address(kInputNames[1], small_.address());
  if (shared_.takes_threshold) {
    set_address(kInputNames[2], small_.address() + sizes_bytes(shape.batch));
  }
  for (size_t i = 0; i < kOutputNames.size(); ++i) {
    set_address(kOutputNames[i], outputs_.address() + layout_.offsets[i]);
  }
}

void TensorrtWork::set_address(const char* tensor, cuda::Pointer address) {
  cn2_tensorrt_why why{};
  void* pointer = reinterpret_cast<void*>(static_cast<uintptr_t>(address));
  check(shared_.module.set_address(context_, tensor, pointer, &why), why);
}

void TensorrtWork::fill(Slot& slot, const EngineInput& input) {
  fill_small(slot, input);
  if (input.canvases == nullptr) {
    preprocessor_->run(input, canvases_.address(), stream_.get());
    return;
  }
  const size_t bytes = static_cast<size_t>(shape_.batch) * canvas_bytes(shape_.canvas);
  cuda::check(cuda::driver().upload(canvases_.address(), input.canvases, bytes, stream_.get()),
              CN2_INFERENCE_ERROR, "canvases to the device");
}

void TensorrtWork::fill_small(Slot& slot, const EngineInput& input) {
  const size_t offset = sizes_bytes(shape_.batch);
  slot.small.reserve(offset + sizeof(float));
  std::memcpy(slot.small.data(), input.picture_sizes,
              2 * sizeof(int32_t) * static_cast<size_t>(shape_.batch));
  const float threshold = input.score_threshold.value_or(shared_.manifest.score_threshold);
  std::memcpy(slot.small.data() + offset, &threshold, sizeof(threshold));
  cuda::check(cuda::driver().upload(small_.address(), slot.small.data(), offset + sizeof(float),
                                    stream_.get()),
              CN2_INFERENCE_ERROR, "picture sizes to the device");
}

// The first runs of a shape as they are: TensorRT needs one before it can be captured, and calls of
// two full groups and a rest would capture each time. Then, where the model's canvas is fixed, as a
// graph.
void TensorrtWork::enqueue() {
  if (runs_ >= kRunsBeforeGraph && graphs_work_ && shared_.manifest.canvas.fixed &&
      graph_.get() == nullptr) {
    graphs_work_ = capture();
  }
  if (graph_.get() != nullptr) {
    cuda::check(cuda::driver().launch_graph(graph_.get(), stream_.get()), CN2_INFERENCE_ERROR,
                shared_.path, ": ", shared_.name, " as a CUDA graph");
    return;
  }
  cn2_tensorrt_why why{};
  check(shared_.module.enqueue(context_, stream_.get(), &why), why);
  ++runs_;
}

// Whether there is a graph now.
bool TensorrtWork::capture() {
  const cuda::Driver& driver = cuda::driver();
  cn2_tensorrt_why why{};
  cuda::Handle recorded = nullptr;
  cuda::Result result = driver.begin_capture(stream_.get(), cuda::kCaptureOfThread);
  if (result == 0) {
    const int32_t enqueued = shared_.module.enqueue(context_, stream_.get(), &why);
    result = driver.end_capture(stream_.get(), &recorded);
    if (enqueued != 0 && result == 0) {
      result = driver.instantiate(graph_.out(), recorded, 0);
    }
  }
  if (recorded != nullptr) {
    driver.destroy_graph(recorded);
  }
  if (graph_.get() == nullptr) {
    log(CN2_LOG_WARNING,
        text(shared_.path, ": runs without a CUDA graph, as ", shared_.name,
             " cannot be captured here (", why.text[0] != '\0' ? shorten(why.text) : "",
             result != 0 ? cuda::describe(result) : "", ")"));
  }
  return graph_.get() != nullptr;
}

void TensorrtWork::check(int32_t succeeded, const cn2_tensorrt_why& why) const {
  if (succeeded == 0) {
    fail(CN2_INFERENCE_ERROR, shared_.path, ": ", shared_.name, " failed (", shorten(why.text),
         ") on cuda:", shared_.device);
  }
}

}  // namespace cn2
