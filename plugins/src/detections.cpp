#include "detections.h"

namespace cn2 {
namespace {

// Not std::clamp: a number that is none stays one, and its box is dropped.
float clip(float value, float limit) {
  return value < 0 ? 0 : value > limit ? limit : value;
}

}  // namespace

size_t to_detections(const EngineOutput& output, size_t row, Size picture, Size resized,
                     std::optional<float> threshold, cn2_detection* found, size_t capacity) {
  const auto width = static_cast<float>(picture.width);
  const auto height = static_cast<float>(picture.height);
  const auto x_factor = static_cast<float>(static_cast<double>(picture.width) / resized.width);
  const auto y_factor = static_cast<float>(static_cast<double>(picture.height) / resized.height);
  const size_t begin = row * static_cast<size_t>(output.rows);
  const size_t end = begin + static_cast<size_t>(output.num_detections[row]);
  size_t count = 0;
  for (size_t i = begin; i < end; ++i) {
    const float* box = output.boxes + 4 * i;
    const cn2_detection detection = {
        {clip(box[0] * x_factor, width), clip(box[1] * y_factor, height),
         clip(box[2] * x_factor, width), clip(box[3] * y_factor, height)},
        output.scores[i],
        output.classes[i]};
    const bool visible = detection.box[2] > detection.box[0] && detection.box[3] > detection.box[1];
    if (!visible || (threshold && !(detection.score > *threshold))) {
      continue;
    }
    if (count < capacity) {
      found[count] = detection;
    }
    ++count;
  }
  return count;
}

}  // namespace cn2
