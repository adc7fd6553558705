// What a graph returns, in pixels of the picture as the caller gave it.
#pragma once

#include <cn2.h>

#include <cstddef>
#include <optional>

#include "canvas.h"
#include "engine.h"

namespace cn2 {

// Row `row` of the output: x is scaled by the ratio of the widths and y by that of the heights;
// boxes are clipped to the picture, and what is then empty, or not above the threshold, is dropped.
// Writes the best `capacity`, returns how many there are.
size_t to_detections(const EngineOutput& output, size_t row, Size picture, Size resized,
                     std::optional<float> threshold, cn2_detection* found, size_t capacity);

}  // namespace cn2
