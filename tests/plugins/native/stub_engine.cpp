// Engines of the test build: any file that libcn2 can check is "run" without a library. Each
// picture has two detections, all of it (score 0.9, class 0) and an eighth (score from its first
// pixel, class 1), of which those above the threshold are given. Runs fail where the first pixel of
// a batch is 13, 0, 7. Memory runs out where cn2_test_fail_allocation says.
#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>
#include <vector>

#include "engine.h"
#include "engine_file.h"
#include "error.h"
#include "onnx_file.h"

namespace {

std::atomic<long> allocations_left{std::numeric_limits<long>::max()};

}  // namespace

// The allocation after `count` more of libcn2, and all from then on, fail; negative: none.
extern "C" __attribute__((visibility("default"))) void cn2_test_fail_allocation(long count) {
  allocations_left = count < 0 ? std::numeric_limits<long>::max() : count;
}

// Those of this library alone, as its symbols are hidden.
void* operator new(size_t size) {
  void* memory = allocations_left.fetch_sub(1) > 0 ? std::malloc(size == 0 ? 1 : size) : nullptr;
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}

void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace cn2 {
namespace {

constexpr int32_t kRows = 2;

class StubRun final : public DirectRun {
 public:
  explicit StubRun(float threshold) : default_threshold_(threshold) {}

 protected:
  EngineOutput infer(const EngineInput& input) override {
    if (input.canvases[0] == 13 && input.canvases[1] == 0 && input.canvases[2] == 7) {
      fail(CN2_INFERENCE_ERROR, "stub: asked to fail");
    }
    counts_.assign(static_cast<size_t>(input.batch), 0);
    boxes_.assign(static_cast<size_t>(input.batch) * kRows * 4, 0);
    scores_.assign(static_cast<size_t>(input.batch) * kRows, 0);
    classes_.assign(static_cast<size_t>(input.batch) * kRows, 0);
    const size_t canvas = static_cast<size_t>(input.height) * static_cast<size_t>(input.width) * 3;
    for (size_t picture = 0; picture < counts_.size(); ++picture) {
      const float score = static_cast<float>(input.canvases[picture * canvas]) / 512.0F;
      add(input, picture, 0.9F, 0, 1.0F);
      add(input, picture, score, 1, 8.0F);
    }
    return {kRows, counts_.data(), boxes_.data(), scores_.data(), classes_.data()};
  }

 private:
  void add(const EngineInput& input, size_t picture, float score, int32_t class_id, float part) {
    if (!(score > input.score_threshold.value_or(default_threshold_))) {
      return;
    }
    const size_t row = picture * kRows + static_cast<size_t>(counts_[picture]++);
    boxes_[4 * row + 2] = static_cast<float>(input.picture_sizes[2 * picture + 1]) / part;
    boxes_[4 * row + 3] = static_cast<float>(input.picture_sizes[2 * picture]) / part;
    scores_[row] = score;
    classes_[row] = class_id;
  }

  float default_threshold_;
  std::vector<int32_t> counts_, classes_;
  std::vector<float> boxes_, scores_;
};

class StubEngine final : public Engine {
 public:
  StubEngine(const Manifest& manifest, const EngineOptions& options)
      : manifest_(manifest), cuda_device_(options.cuda_device) {}
  std::unique_ptr<EngineRun> create_run() const override {
    return std::make_unique<StubRun>(manifest_.score_threshold);
  }
  int32_t batch_for(Size, size_t waiting) const override { return any_batch(manifest_, waiting); }
  std::string description() const override { return cuda_device_ ? "stub on cuda" : "stub on cpu"; }
  std::optional<int> cuda_device() const override { return cuda_device_; }

 private:
  Manifest manifest_;
  std::optional<int> cuda_device_;
};

std::unique_ptr<Engine> open_stub(const std::string&, const Manifest& manifest,
                                  const EngineOptions& options) {
  return std::make_unique<StubEngine>(manifest, options);
}

constexpr EngineReader kOnnx = {".onnx", read_onnx_manifest, open_stub};
constexpr EngineReader kPlan = {".engine", read_engine_manifest, open_stub};

}  // namespace

const EngineReader& find_engine_reader(const std::string& path) {
  for (const EngineReader* reader : {&kOnnx, &kPlan}) {
    if (path.ends_with(reader->suffix)) {
      return *reader;
    }
  }
  fail(CN2_MODEL_ERROR, path, ": expected a model file");
}

}  // namespace cn2
