// The host's side of preprocess_cuda: checks, the workspace, launches of up to 16 pictures.
#include "preprocess_launch.h"

namespace cn2 {
namespace {

constexpr int32_t kLongestSide = 65535;
constexpr int64_t kAlignment = 256;

bool is_side(int32_t side) {
  return side >= 1 && side <= kLongestSide;
}

int64_t row_bytes(const CudaPicture& picture) {
  switch (picture.format) {
    case PixelFormat::kRgb:
    case PixelFormat::kBgr:
      return int64_t{3} * picture.width;
    case PixelFormat::kRgba:
    case PixelFormat::kBgra:
      return int64_t{4} * picture.width;
    default:
      return picture.width;
  }
}

bool is_possible(const CudaPicture& picture, const CanvasShape& canvas) {
  const auto format = static_cast<int32_t>(picture.format);
  if (format < 0 || format > static_cast<int32_t>(PixelFormat::kNv12) || picture.data == nullptr ||
      !is_side(picture.width) || !is_side(picture.height) || picture.pitch < row_bytes(picture) ||
      picture.pitch > std::numeric_limits<int64_t>::max() / kLongestSide ||
      picture.resized_width < 1 || picture.resized_width > canvas.width ||
      picture.resized_height < 1 || picture.resized_height > canvas.height) {
    return false;
  }
  return picture.format != PixelFormat::kNv12 ||
         (picture.chroma != nullptr && picture.width % 2 == 0 && picture.height % 2 == 0 &&
          picture.chroma_pitch >= picture.width &&
          picture.chroma_pitch <= std::numeric_limits<int64_t>::max() / kLongestSide);
}

// ceil of the factor by which the picture shrinks, on both sides, and the middle.
int count_taps(int32_t from, int32_t to) {
  return static_cast<int>(from > to ? ceil_div(from, to) : 1) * 2 + 1;
}

int64_t align(int64_t bytes) {
  return ceil_div(bytes, kAlignment) * kAlignment;
}

}  // namespace

AntialiasLayout find_layout(const CudaPicture& picture) {
  AntialiasLayout layout{};
  layout.column_taps = count_taps(picture.width, picture.resized_width);
  layout.row_taps = count_taps(picture.height, picture.resized_height);
  const auto table = [](int32_t side, int taps) {
    return align(int64_t{side} * (taps + 2) * static_cast<int64_t>(sizeof(int32_t)));
  };
  layout.rows = layout.columns + table(picture.resized_width, layout.column_taps);
  layout.resized = layout.rows + table(picture.resized_height, layout.row_taps);
  layout.end = layout.resized + align(int64_t{picture.height} * picture.resized_width * 3);
  return layout;
}

bool is_possible_on_cuda(const CudaPicture* pictures, size_t count, Interpolation interpolation,
                         const CanvasShape& canvas) noexcept {
  if (!is_side(canvas.height) || !is_side(canvas.width) || count > (size_t{1} << 24) ||
      (interpolation != Interpolation::kAntialias && interpolation != Interpolation::kLinear)) {
    return false;
  }
  for (size_t i = 0; i < count; ++i) {
    if (!is_possible(pictures[i], canvas)) {
      return false;
    }
  }
  return true;
}

size_t preprocess_workspace_size(const CudaPicture* pictures, size_t count,
                                 Interpolation interpolation) noexcept {
  int64_t bytes = 0;
  for (size_t i = 0; i < count && interpolation == Interpolation::kAntialias; ++i) {
    bytes += find_layout(pictures[i]).end;
  }
  return static_cast<size_t>(bytes);
}

cudaError_t preprocess_cuda(const CudaPicture* pictures, size_t count, Interpolation interpolation,
                            const CanvasShape& canvas, uint8_t* canvases, int32_t* image_sizes,
                            void* workspace, size_t workspace_size, cudaStream_t stream) noexcept {
  if (!is_possible_on_cuda(pictures, count, interpolation, canvas) ||
      workspace_size < preprocess_workspace_size(pictures, count, interpolation)) {
    return cudaErrorInvalidValue;
  }
  const auto launch_batch =
      interpolation == Interpolation::kLinear ? launch_linear : launch_antialias;
  auto* tables = static_cast<unsigned char*>(workspace);
  cudaError_t error = cudaSuccess;
  for (size_t begin = 0; begin < count && error == cudaSuccess; begin += kPicturesOfLaunch) {
    PictureBatch batch{};
    batch.canvas = canvas;
    batch.canvases = canvases + begin * 3 * static_cast<size_t>(canvas.height) *
                                    static_cast<size_t>(canvas.width);
    batch.image_sizes = image_sizes == nullptr ? nullptr : image_sizes + 2 * begin;
    for (size_t i = begin; i < count && i < begin + kPicturesOfLaunch; ++i) {
      batch.tables[batch.count] = tables;
      batch.pictures[batch.count++] = pictures[i];
      if (interpolation == Interpolation::kAntialias) {
        tables += find_layout(pictures[i]).end;
      }
    }
    error = launch_batch(batch, stream);
  }
  return error;
}

}  // namespace cn2
