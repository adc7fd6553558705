// The inner loops of the antialiased resize, in the instructions of the processor.
#pragma once

#include <cstdint>

namespace cn2 {

struct AntialiasAxis;

constexpr int32_t kAntialiasBits = 22;  // fractional bits of a weight
constexpr int32_t kAntialiasHalf = 1 << (kAntialiasBits - 1);

// Resize a row of RGB along x.
void antialias_row(const uint8_t* rgb, const AntialiasAxis& columns, uint8_t* resized);

// Add a weighted row of `count` bytes to the sums.
void antialias_add(const uint8_t* row, int32_t weight, int32_t count, int32_t* sums);

// Sums to bytes.
void antialias_round(const int32_t* sums, int32_t count, uint8_t* bytes);

}  // namespace cn2
