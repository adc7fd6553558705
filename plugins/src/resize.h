// Resize a picture of any format to RGB.
#pragma once

#include <cstdint>

#include "pixels.h"
#include "resize_antialias.h"
#include "resize_linear.h"
#include "target.h"

namespace cn2 {

// Keeps its buffers and tables from one picture to the next; one thread at a time.
class Resizer {
 public:
  // `interpolation`: CN2_ANTIALIAS, CN2_LINEAR. A picture of the target's size is only converted.
  void resize(const Pixels& picture, int32_t interpolation, const Target& target);

 private:
  LinearResizer linear_;
  AntialiasResizer antialias_;
};

}  // namespace cn2
