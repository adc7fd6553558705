// Pictures as callers through C give them, as the kernels take them.
#pragma once

#include <vector>

#include "cuda_entries.h"
#include "preprocess_cuda.h"

namespace cn2::testing {

inline std::vector<CudaPicture> read_pictures(const cn2_cuda_picture* pictures, int64_t count) {
  std::vector<CudaPicture> all;
  for (int64_t i = 0; i < count; ++i) {
    const cn2_cuda_picture& one = pictures[i];
    all.push_back({one.data, one.chroma, one.pitch, one.chroma_pitch,
                   static_cast<PixelFormat>(one.format), one.width, one.height, one.resized_width,
                   one.resized_height});
  }
  return all;
}

}  // namespace cn2::testing
