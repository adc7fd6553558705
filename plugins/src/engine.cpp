#include "engine.h"

#include <algorithm>

#include "error.h"

namespace cn2 {
namespace {

constexpr size_t kMaxBatch = 8;  // pictures a run where the model takes any number

void check_range(const char* name, const int32_t* values, size_t count, int32_t largest,
                 const std::string& source) {
  const auto [lowest, highest] = std::minmax_element(values, values + count);
  if (count > 0 && (*lowest < 0 || *highest > largest)) {
    fail(CN2_MODEL_ERROR, source, ": expected ", name, " from 0 to ", largest, ", got ", *lowest,
         " to ", *highest, "; export the model again");
  }
}

}  // namespace

uint8_t* DirectRun::canvas_memory(size_t, size_t bytes) {
  canvases_.resize(std::max(canvases_.size(), bytes));
  return canvases_.data();
}

void DirectRun::begin(size_t, const EngineInput& input) {
  input_ = input;
}

EngineOutput DirectRun::finish(size_t) {
  return infer(input_);
}

int32_t any_batch(const Manifest& manifest, size_t waiting) {
  return manifest.batch != 0 ? manifest.batch : static_cast<int32_t>(std::min(waiting, kMaxBatch));
}

void check_output(const Manifest& manifest, const EngineOutput& output, int32_t batch,
                  const std::string& source) {
  if (output.rows > manifest.detections) {
    fail(CN2_MODEL_ERROR, source, ": expected at most ", manifest.detections,
         " detections per picture by its manifest, got ", output.rows, "; export the model again");
  }
  const auto pictures = static_cast<size_t>(batch);
  const size_t rows = pictures * static_cast<size_t>(output.rows);
  const auto last_class = static_cast<int32_t>(manifest.class_names.size()) - 1;
  check_range("num_detections", output.num_detections, pictures, output.rows, source);
  check_range("classes", output.classes, rows, last_class, source);
}

}  // namespace cn2
