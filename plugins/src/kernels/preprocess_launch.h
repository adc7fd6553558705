// What the two ways of resizing share: pictures of one launch, and the canvas's rest.
#pragma once

#include "cuda_launch.h"
#include "preprocess_cuda.h"

namespace cn2 {

inline constexpr size_t kPicturesOfLaunch = 16;  // they are the kernels' arguments: 4 KB at most

struct PictureBatch {
  CudaPicture pictures[kPicturesOfLaunch];
  unsigned char* tables[kPicturesOfLaunch];  // of each, in the workspace; kAntialias only
  int count;
  CanvasShape canvas;
  uint8_t* canvases;
  int32_t* image_sizes;
};

// Where a picture's tables and its rows, resized along x, are in the workspace: offsets in bytes.
struct AntialiasLayout {
  int column_taps, row_taps;  // the most pixels that one of the result is made of
  int64_t columns, rows;  // tables: for each pixel of the result int32 first, count, weights[taps]
  int64_t resized;        // [height, resized_width, 3]
  int64_t end;
};

AntialiasLayout find_layout(const CudaPicture& picture);

cudaError_t launch_linear(const PictureBatch& batch, cudaStream_t stream);
cudaError_t launch_antialias(const PictureBatch& batch, cudaStream_t stream);

}  // namespace cn2
