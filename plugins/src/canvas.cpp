#include "canvas.h"

#include <algorithm>

namespace cn2 {
namespace {

int32_t whole(double side, bool rounds_down) {
  return static_cast<int32_t>(
      std::max<int64_t>(1, static_cast<int64_t>(side + (rounds_down ? 0.0 : 0.5))));
}

int32_t next_multiple(int32_t side, int32_t divisor) {
  return (side + divisor - 1) / divisor * divisor;
}

}  // namespace

// The order of the operations is that of the Python side: the last bit decides the rounding.
Size CanvasRule::resized_size(Size picture) const {
  const double height = picture.height;
  const double width = picture.width;
  if (!fixed && !rounds_down) {
    double scale = short_edge / std::min(height, width);
    double new_height = height < width ? short_edge : scale * height;
    double new_width = height < width ? scale * width : short_edge;
    const double longest = std::max(new_height, new_width);
    if (longest > long_edge) {
      scale = long_edge / longest;
      new_height = new_height * scale;
      new_width = new_width * scale;
    }
    return {whole(new_height, false), whole(new_width, false)};
  }
  const double scale =
      fixed ? std::min(fixed->height / height, fixed->width / width)
            : std::min(short_edge / std::min(height, width), long_edge / std::max(height, width));
  return {whole(height * scale, rounds_down), whole(width * scale, rounds_down)};
}

Size CanvasRule::canvas_size(Size resized) const {
  if (fixed) {
    return *fixed;
  }
  return {next_multiple(resized.height, divisor), next_multiple(resized.width, divisor)};
}

}  // namespace cn2
