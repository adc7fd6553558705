#include "context.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <tuple>

#include "detections.h"
#include "error.h"

namespace cn2 {
namespace {

constexpr size_t kMostWaiting = 1024;  // pictures that are counted to choose a batch

// Adds the time until it goes out of scope.
class Stopwatch {
 public:
  explicit Stopwatch(float& total_ms) : total_ms_(total_ms) {}
  ~Stopwatch() {
    const std::chrono::duration<float, std::milli> elapsed = Clock::now() - start_;
    total_ms_ += elapsed.count();
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  float& total_ms_;
  Clock::time_point start_ = Clock::now();
};

std::optional<float> check_threshold(const Manifest& manifest, float threshold) {
  if (threshold < 0) {
    return std::nullopt;
  }
  if (!(threshold >= manifest.lowest_score_threshold && threshold <= 1)) {
    invalid("score_threshold: expected ", manifest.lowest_score_threshold,
            " (the lowest of this model) to 1, or below 0 for the model's own, got ", threshold);
  }
  return threshold;
}

void check_sizes(const EngineInput& input) {
  for (int32_t i = 0; i < input.batch; ++i) {
    const int32_t height = input.picture_sizes[2 * static_cast<ptrdiff_t>(i)];
    const int32_t width = input.picture_sizes[2 * static_cast<ptrdiff_t>(i) + 1];
    if (height < 1 || width < 1 || height > input.height || width > input.width) {
      invalid("picture_sizes: expected sides from 1 to the canvas ", input.height, " x ",
              input.width, ", got ", height, " x ", width);
    }
  }
}

void check_input(const Manifest& manifest, const EngineInput& input) {
  const CanvasRule& rule = manifest.canvas;
  if (input.batch < 1 || (manifest.batch != 0 && input.batch != manifest.batch)) {
    invalid("batch: expected ", manifest.batch == 0 ? "1 or more" : text(manifest.batch), ", got ",
            input.batch);
  }
  const Size size = {input.height, input.width};
  if (rule.fixed && size != *rule.fixed) {
    invalid("canvases: expected a canvas of ", rule.fixed->height, " x ", rule.fixed->width,
            ", got ", size.height, " x ", size.width);
  }
  const auto fits = [&](int32_t side) {
    return side >= 1 && side <= kLongestEdge && side % rule.divisor == 0;
  };
  if (!fits(size.height) || !fits(size.width)) {
    invalid("canvases: expected a canvas in multiples of ", rule.divisor, ", got ", size.height,
            " x ", size.width);
  }
  check_sizes(input);
}

// Zero what lies right of and below the picture.
void blank_around(uint8_t* canvas, Size size, Size picture) {
  const size_t pitch = static_cast<size_t>(size.width) * 3;
  const size_t used = static_cast<size_t>(picture.width) * 3;
  for (int32_t y = 0; used < pitch && y < picture.height; ++y) {
    std::memset(canvas + static_cast<size_t>(y) * pitch + used, 0, pitch - used);
  }
  const size_t rows = static_cast<size_t>(picture.height) * pitch;
  std::memset(canvas + rows, 0, canvas_bytes(size) - rows);
}

}  // namespace

Context::Context(std::shared_ptr<const Model> model)
    : model_(std::move(model)),
      engine_run_(model_->engine->create_run()),
      groups_(engine_run_->slots()) {}

void Context::detect(const ImageList& images, const CallOptions& options,
                     const DetectionSink& sink) {
  const EngineInput call = check_options(options);
  timings_ = {};
  {
    const Stopwatch watch(timings_.preprocess_ms);
    plan(images);
  }
  try {
    run_groups(call, sink);
  } catch (...) {
    engine_run_->abandon();
    throw;
  }
}

EngineInput Context::check_options(const CallOptions& options) const {
  EngineInput call;
  call.score_threshold = check_threshold(model_->manifest, options.score_threshold);
  call.cuda_stream = options.cuda_stream;
  if (options.cuda_stream != nullptr && !model_->engine->cuda_device()) {
    invalid("cuda_stream: expected null, as this model runs on the CPU (", model_->runtime,
            "), got a stream");
  }
  return call;
}

// Check all pictures before anything runs; those of one canvas beside one another, in their order.
void Context::plan(const ImageList& images) {
  placed_.clear();
  const CanvasRule& rule = model_->manifest.canvas;
  for (size_t index = 0; index < images.size(); ++index) {
    const Name name = {"images", static_cast<std::ptrdiff_t>(index)};
    const Pixels pixels = check_image(images.at(index), name);
    if (pixels.memory == CN2_CUDA && !model_->engine->cuda_device()) {
      fail(CN2_UNAVAILABLE, "images[", index,
           "]: expected host memory, as this model runs on the CPU (", model_->runtime,
           "), got CN2_CUDA; open the model with device \"cuda\"");
    }
    if (pixels.memory == CN2_CUDA && engine_run_->takes_device_pictures()) {
      engine_run_->check_device_picture(pixels, name);
    }
    const Size resized = rule.resized_size(pixels.size);
    const Size canvas = rule.canvas_size(resized);
    model_->engine->batch_for(canvas, 1);
    placed_.push_back({pixels, resized, canvas, index});
  }
  std::sort(placed_.begin(), placed_.end(), [](const Placed& a, const Placed& b) {
    return std::tie(a.canvas.height, a.canvas.width, a.index) <
           std::tie(b.canvas.height, b.canvas.width, b.index);
  });
}

// While the engine runs one group, the host resizes the pictures of the next, in another slot.
void Context::run_groups(const EngineInput& call, const DetectionSink& sink) {
  size_t begun = 0;
  size_t done = 0;
  for (size_t first = 0; first < placed_.size(); ++begun) {
    if (begun - done == groups_.size()) {
      complete(done++ % groups_.size(), sink);
    }
    const size_t slot = begun % groups_.size();
    Group& group = groups_[slot];
    group.input = call;
    take(group, first);
    first += group.count;
    fill(group, slot);
    begin(slot, group.input);
  }
  while (done < begun) {
    complete(done++ % groups_.size(), sink);
  }
}

// The pictures that run together, from the first on: all of one canvas.
void Context::take(Group& group, size_t first) const {
  group.pictures = &placed_[first];
  const Size canvas = group.pictures->canvas;
  size_t waiting = 1;
  while (waiting < kMostWaiting && first + waiting < placed_.size() &&
         group.pictures[waiting].canvas == canvas) {
    ++waiting;
  }
  group.input.batch = model_->engine->batch_for(canvas, waiting);
  group.input.height = canvas.height;
  group.input.width = canvas.width;
  group.count = std::min(waiting, static_cast<size_t>(group.input.batch));
}

// What the engine takes: host canvases, or pictures that it resizes itself. Canvases that are left
// over are blank, with a picture of one pixel.
void Context::fill(Group& group, size_t slot) {
  const Stopwatch watch(timings_.preprocess_ms);
  group.sizes.assign(2 * static_cast<size_t>(group.input.batch), 1);
  bool on_device = engine_run_->takes_device_pictures();
  for (size_t i = 0; i < group.count; ++i) {
    group.sizes[2 * i] = group.pictures[i].resized.height;
    group.sizes[2 * i + 1] = group.pictures[i].resized.width;
    on_device = on_device && group.pictures[i].pixels.memory == CN2_CUDA;
  }
  group.input.picture_sizes = group.sizes.data();
  if (!on_device) {
    stack(group, slot);
    return;
  }
  group.pixels.clear();
  for (size_t i = 0; i < group.count; ++i) {
    group.pixels.push_back(group.pictures[i].pixels);
  }
  group.input.pictures = {group.pixels.data(), group.count, model_->manifest.canvas.interpolation};
}

void Context::stack(Group& group, size_t slot) {
  const size_t bytes = canvas_bytes(group.pictures->canvas);
  const auto batch = static_cast<size_t>(group.input.batch);
  uint8_t* canvases = engine_run_->canvas_memory(slot, batch * bytes);
  for (size_t i = 0; i < group.count; ++i) {
    place(group.pictures[i], canvases + i * bytes, group.input.cuda_stream);
  }
  std::memset(canvases + group.count * bytes, 0, (batch - group.count) * bytes);
  group.input.canvases = canvases;
}

void Context::place(const Placed& placed, uint8_t* canvas, void* stream) {
  const Pixels pixels = placed.pixels.memory == CN2_CUDA
                            ? cuda_.to_host(placed.pixels, *model_->engine->cuda_device(), stream)
                            : placed.pixels;
  const Target target = {canvas, placed.resized, static_cast<size_t>(placed.canvas.width) * 3};
  resizer_.resize(pixels, model_->manifest.canvas.interpolation, target);
  blank_around(canvas, placed.canvas, placed.resized);
}

void Context::begin(size_t slot, const EngineInput& input) {
  const Stopwatch watch(timings_.inference_ms);
  engine_run_->begin(slot, input);
}

EngineOutput Context::finish(size_t slot, int32_t batch) {
  const Stopwatch watch(timings_.inference_ms);
  const EngineOutput output = engine_run_->finish(slot);
  timings_.device_preprocess_ms += output.device_preprocess_ms;
  timings_.device_inference_ms += output.device_inference_ms;
  check_output(model_->manifest, output, batch, model_->path);
  return output;
}

void Context::complete(size_t slot, const DetectionSink& sink) {
  const Group& group = groups_[slot];
  const EngineOutput output = finish(slot, group.input.batch);
  const Stopwatch watch(timings_.postprocess_ms);
  for (size_t row = 0; row < group.count; ++row) {
    const Placed& placed = group.pictures[row];
    cn2_detection* found =
        sink.capacity == 0 ? nullptr : sink.detections + placed.index * sink.capacity;
    sink.counts[placed.index] = to_detections(output, row, placed.pixels.size, placed.resized,
                                              group.input.score_threshold, found, sink.capacity);
  }
}

EngineOutput Context::infer(const EngineInput& input, const CallOptions& options) {
  EngineInput call = check_options(options);
  call.canvases = input.canvases;
  call.batch = input.batch;
  call.height = input.height;
  call.width = input.width;
  call.picture_sizes = input.picture_sizes;
  check_input(model_->manifest, call);
  timings_ = {};
  try {
    begin(0, call);
    return finish(0, call.batch);
  } catch (...) {
    engine_run_->abandon();
    throw;
  }
}

}  // namespace cn2
