#include "resize.h"

namespace cn2 {

void Resizer::resize(const Pixels& picture, int32_t interpolation, const Target& target) {
  if (picture.size == target.size) {
    for (int32_t y = 0; y < target.size.height; ++y) {
      read_rgb_row(picture, y, target.row(y));
    }
  } else if (interpolation == CN2_LINEAR) {
    linear_.resize(picture, target);
  } else {
    antialias_.resize(picture, target);
  }
}

}  // namespace cn2
