// How large a picture is resized, and how large the canvas is that it is placed on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace cn2 {

// Pixels.
struct Size {
  int32_t height = 0;
  int32_t width = 0;
  bool operator==(const Size&) const = default;
};

// Of a canvas of RGB.
constexpr size_t canvas_bytes(Size canvas) {
  return 3 * static_cast<size_t>(canvas.height) * static_cast<size_t>(canvas.width);
}

constexpr int32_t kLongestEdge = 1 << 20;  // of a canvas; what a file says beyond is refused

// A model's rule for picture sizes, the same to the last bit as CanvasRule of cn2.runtime.canvas.
struct CanvasRule {
  int32_t short_edge = 0;
  int32_t long_edge = 0;
  int32_t divisor = 1;
  int32_t interpolation = 0;    // CN2_ANTIALIAS, CN2_LINEAR
  bool rounds_down = false;     // resized sides to whole pixels; else to the nearest
  std::optional<Size> fixed{};  // the canvas of every picture

  // The size that a picture of at least 1x1 is resized to; each side is at least 1.
  Size resized_size(Size picture) const;

  // The canvas of a picture that was resized to `resized`.
  Size canvas_size(Size resized) const;
};

}  // namespace cn2
