// A caller's picture in host memory, checked, and its rows as RGB.
#pragma once

#include <cn2.h>

#include <cstddef>
#include <cstdint>

#include "canvas.h"
#include "error.h"

namespace cn2 {

// As cn2_image, but all of it is known: no pitch is 0, and NV12 has its chroma plane.
struct Pixels {
  int32_t format = CN2_RGB8;
  int32_t memory = CN2_HOST;
  Size size;
  const uint8_t* data = nullptr;
  size_t pitch = 0;
  const uint8_t* chroma = nullptr;
  size_t chroma_pitch = 0;

  size_t row_bytes() const;  // of the first plane
};

// Throws Error (CN2_INVALID_ARGUMENT), naming `what`: a null pointer, a size, pitch, format or
// memory that no picture has.
Pixels check_image(const cn2_image& image, Name what);

// Where a pixel's red, green and blue lie, in bytes, for formats that keep them together.
struct PixelLayout {
  int32_t bytes;  // a pixel; 0: not such a format
  int32_t red, green, blue;
};

PixelLayout layout_of(int32_t format);

// Write row y as RGB, width * 3 bytes.
void read_rgb_row(const Pixels& picture, int32_t y, uint8_t* rgb);

// Row y as RGB: of the picture itself where it is, else written to `scratch` first.
const uint8_t* rgb_row(const Pixels& picture, int32_t y, uint8_t* scratch);

}  // namespace cn2
