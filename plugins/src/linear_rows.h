// The inner loops of the linear resize, in the instructions of the processor.
#pragma once

#include <cstdint>

#include "pixels.h"

namespace cn2 {

struct LinearAxis;

// Resize a row along x: values (width of the result * 3) of weights[0] * first + weights[1] *
// second, >> 4.
void linear_row(const uint8_t* row, const PixelLayout& layout, const LinearAxis& columns,
                int16_t* values);

// Weigh two such rows: `count` bytes.
void linear_blend(const int16_t* first, const int16_t* second, int16_t first_weight,
                  int16_t second_weight, int32_t count, uint8_t* bytes);

// The mean of 2 x 2 pixels of two rows of RGB, for `count` pixels of the result.
void linear_mean(const uint8_t* above, const uint8_t* below, int32_t count, uint8_t* rgb);

}  // namespace cn2
