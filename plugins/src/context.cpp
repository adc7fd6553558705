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

constexpr size_t kMaxBatch = 8;  // pictures a run where the model takes any number

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

size_t canvas_bytes(Size canvas) {
  return static_cast<size_t>(canvas.height) * static_cast<size_t>(canvas.width) * 3;
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
    : model_(std::move(model)), engine_run_(model_->engine->create_run()) {}

void Context::detect(const ImageList& images, float score_threshold, const DetectionSink& sink) {
  const std::optional<float> threshold = check_threshold(model_->manifest, score_threshold);
  timings_ = {};
  {
    const Stopwatch watch(timings_.preprocess_ms);
    plan(images);
  }
  const auto batch = static_cast<size_t>(model_->manifest.batch);
  const size_t most = batch == 0 ? kMaxBatch : batch;
  for (size_t begin = 0; begin < placed_.size();) {
    size_t end = begin + 1;
    while (end < placed_.size() && end - begin < most &&
           placed_[end].canvas == placed_[begin].canvas) {
      ++end;
    }
    run(&placed_[begin], end - begin, threshold, sink);
    begin = end;
  }
}

// Check all pictures before anything runs; those of one canvas beside one another, in their order.
void Context::plan(const ImageList& images) {
  placed_.clear();
  const CanvasRule& rule = model_->manifest.canvas;
  for (size_t index = 0; index < images.size(); ++index) {
    const Pixels pixels =
        check_image(images.at(index), {"images", static_cast<std::ptrdiff_t>(index)});
    if (pixels.memory == CN2_CUDA && !model_->engine->cuda_device()) {
      fail(CN2_UNAVAILABLE, "images[", index,
           "]: expected host memory, as this model runs on the CPU (", model_->runtime,
           "), got CN2_CUDA; open the model with device \"cuda\"");
    }
    const Size resized = rule.resized_size(pixels.size);
    placed_.push_back({pixels, resized, rule.canvas_size(resized), index});
  }
  std::sort(placed_.begin(), placed_.end(), [](const Placed& a, const Placed& b) {
    return std::tie(a.canvas.height, a.canvas.width, a.index) <
           std::tie(b.canvas.height, b.canvas.width, b.index);
  });
}

void Context::run(const Placed* group, size_t count, std::optional<float> threshold,
                  const DetectionSink& sink) {
  EngineInput input;
  {
    const Stopwatch watch(timings_.preprocess_ms);
    input = stack(group, count);
    input.score_threshold = threshold;
  }
  const EngineOutput output = run_engine(input);
  const Stopwatch watch(timings_.postprocess_ms);
  for (size_t row = 0; row < count; ++row) {
    const Placed& placed = group[row];
    cn2_detection* found =
        sink.capacity == 0 ? nullptr : sink.detections + placed.index * sink.capacity;
    sink.counts[placed.index] = to_detections(output, row, placed.pixels.size, placed.resized,
                                              threshold, found, sink.capacity);
  }
}

// One batch; a model's fixed batch is filled up with blank pictures of one pixel.
EngineInput Context::stack(const Placed* group, size_t count) {
  const Size canvas = group[0].canvas;
  const auto fixed = static_cast<size_t>(model_->manifest.batch);
  const size_t batch = fixed == 0 ? count : fixed;
  const size_t bytes = canvas_bytes(canvas);
  canvases_.resize(std::max(canvases_.size(), batch * bytes));
  sizes_.assign(2 * batch, 1);
  for (size_t slot = 0; slot < count; ++slot) {
    place(group[slot], canvases_.data() + slot * bytes);
    sizes_[2 * slot] = group[slot].resized.height;
    sizes_[2 * slot + 1] = group[slot].resized.width;
  }
  if (batch > count) {
    std::memset(canvases_.data() + count * bytes, 0, (batch - count) * bytes);
  }
  return {canvases_.data(), static_cast<int32_t>(batch), canvas.height, canvas.width,
          sizes_.data()};
}

void Context::place(const Placed& placed, uint8_t* canvas) {
  const Pixels pixels = placed.pixels.memory == CN2_CUDA
                            ? cuda_.to_host(placed.pixels, *model_->engine->cuda_device())
                            : placed.pixels;
  const Target target = {canvas, placed.resized, static_cast<size_t>(placed.canvas.width) * 3};
  resizer_.resize(pixels, model_->manifest.canvas.interpolation, target);
  blank_around(canvas, placed.canvas, placed.resized);
}

EngineOutput Context::run_engine(const EngineInput& input) {
  const Stopwatch watch(timings_.inference_ms);
  const EngineOutput output = engine_run_->infer(input);
  check_output(model_->manifest, output, input.batch, model_->path);
  return output;
}

EngineOutput Context::infer(const EngineInput& input, float score_threshold) {
  EngineInput checked = input;
  checked.score_threshold = check_threshold(model_->manifest, score_threshold);
  check_input(model_->manifest, checked);
  timings_ = {};
  return run_engine(checked);
}

}  // namespace cn2
