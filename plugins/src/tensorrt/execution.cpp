#include "tensorrt/execution.h"

#include <algorithm>
#include <initializer_list>

#include "contract.h"
#include "error.h"
#include "log.h"

namespace cn2 {
namespace {

constexpr int64_t kRunsBeforeGraph = 2;

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

TensorrtExecution::TensorrtExecution(const TensorrtShared& shared, const cuda::DeviceBuffer& memory)
    : shared_(shared) {
  cn2_tensorrt_why why{};
  context_ = shared.module.create_context(shared.engine, memory.pointer(), memory.size(), &why);
  if (context_ == nullptr) {
    fail(CN2_OUT_OF_MEMORY, shared.path, ": ", shared.name, " makes no context (",
         shorten(why.text), ")");
  }
}

TensorrtExecution::~TensorrtExecution() {
  shared_.module.destroy_context(context_);
}

void TensorrtExecution::forget() {
  shape_ = {};
  runs_ = 0;
  graph_.reset();
}

void TensorrtExecution::set_shape(const TensorrtShape& shape, cuda::Handle stream) {
  forget();
  next_ = shape;
  set_input_shapes(stream);
  read_output_shapes();
}

void TensorrtExecution::set_input_shapes(cuda::Handle stream) {
  cn2_tensorrt_why why{};
  const int32_t profile = choose_profile(shared_.profiles, next_.batch, next_.canvas);
  if (profile != profile_) {
    check(shared_.module.set_profile(context_, profile, stream, &why), why);
    profile_ = profile;
  }
  const auto set = [&](const char* tensor, const cn2_tensorrt_shape& sides) {
    check(shared_.module.set_shape(context_, tensor, &sides, &why), why);
  };
  set(kInputNames[0], make_shape({next_.batch, next_.canvas.height, next_.canvas.width, 3}));
  set(kInputNames[1], make_shape({next_.batch, 2}));
}

// D, and where each output lies.
void TensorrtExecution::read_output_shapes() {
  const auto shape_of = [&](const char* tensor) {
    cn2_tensorrt_shape shape{};
    shared_.module.output_shape(context_, tensor, &shape);
    return sides_of(shape);
  };
  const int64_t batch = next_.batch;
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
    offset += tensor_bytes(bytes);
  }
  layout_.bytes = offset;
  layout_.rows = static_cast<int32_t>(rows);
}

void TensorrtExecution::bind(const TensorrtAddresses& addresses) {
  set_address(kInputNames[0], addresses.images);
  set_address(kInputNames[1], addresses.sizes);
  if (shared_.takes_threshold) {
    set_address(kInputNames[2], addresses.threshold);
  }
  for (size_t i = 0; i < kOutputNames.size(); ++i) {
    set_address(kOutputNames[i], addresses.outputs + layout_.offsets[i]);
  }
  shape_ = next_;
}

void TensorrtExecution::set_address(const char* tensor, cuda::Pointer address) {
  cn2_tensorrt_why why{};
  void* pointer = reinterpret_cast<void*>(static_cast<uintptr_t>(address));
  check(shared_.module.set_address(context_, tensor, pointer, &why), why);
}

// The first runs of a shape as they are: TensorRT needs one before it can be captured, and a shape
// that comes once is not worth it. Then, where the model's canvas is fixed, as a graph.
void TensorrtExecution::enqueue(cuda::Handle stream) {
  if (runs_ >= kRunsBeforeGraph && graphs_work_ && shared_.manifest.canvas.fixed &&
      graph_.get() == nullptr) {
    graphs_work_ = capture(stream);
  }
  if (graph_.get() != nullptr) {
    cuda::check(cuda::driver().launch_graph(graph_.get(), stream), CN2_INFERENCE_ERROR,
                shared_.path, ": ", shared_.name, " as a CUDA graph");
    return;
  }
  cn2_tensorrt_why why{};
  check(shared_.module.enqueue(context_, stream, &why), why);
  ++runs_;
}

// Whether there is a graph now.
bool TensorrtExecution::capture(cuda::Handle stream) {
  const cuda::Driver& driver = cuda::driver();
  cn2_tensorrt_why why{};
  cuda::Handle recorded = nullptr;
  cuda::Result result = driver.begin_capture(stream, cuda::kCaptureOfThread);
  if (result == 0) {
    const int32_t enqueued = shared_.module.enqueue(context_, stream, &why);
    result = driver.end_capture(stream, &recorded);
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

void TensorrtExecution::check(int32_t succeeded, const cn2_tensorrt_why& why) const {
  if (succeeded == 0) {
    fail(CN2_INFERENCE_ERROR, shared_.path, ": ", shared_.name, " failed (", shorten(why.text),
         ") on cuda:", shared_.device);
  }
}

}  // namespace cn2
