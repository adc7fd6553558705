// Where a resized picture goes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "canvas.h"

namespace cn2 {

// RGB: height rows of width * 3 bytes, `pitch` bytes apart.
struct Target {
  uint8_t* data = nullptr;
  Size size;
  size_t pitch = 0;

  uint8_t* row(int32_t y) const { return data + static_cast<size_t>(y) * pitch; }
  size_t row_bytes() const { return static_cast<size_t>(size.width) * 3; }
};

}  // namespace cn2
