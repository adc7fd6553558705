#include "pixels.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace cn2 {
namespace {

constexpr int32_t kLongestSide = 65535;  // pixels
constexpr size_t kLargestPitch = std::numeric_limits<size_t>::max() / 4 / kLongestSide;

size_t bytes_per_pixel(int32_t format) {
  switch (format) {
    case CN2_RGB8:
    case CN2_BGR8:
      return 3;
    case CN2_RGBA8:
    case CN2_BGRA8:
      return 4;
    default:
      return 1;
  }
}

void check_size(const cn2_image& image, Name what) {
  const auto fits = [](int32_t side) { return side >= 1 && side <= kLongestSide; };
  if (!fits(image.width) || !fits(image.height)) {
    invalid(what, ": expected a width and height from 1 to ", kLongestSide, ", got ", image.width,
            " x ", image.height);
  }
  if (image.format == CN2_NV12 && (image.width % 2 != 0 || image.height % 2 != 0)) {
    invalid(what, ": expected an even width and height of NV12, got ", image.width, " x ",
            image.height);
  }
}

size_t check_pitch(size_t pitch, size_t row, const char* name, Name what) {
  if (pitch != 0 && (pitch < row || pitch > kLargestPitch)) {
    invalid(what, ": expected a ", name, " of 0 or at least the ", row, " bytes of a row, got ",
            pitch);
  }
  return pitch == 0 ? row : pitch;
}

template <int kBytes, int kRed, int kBlue>
void copy_row(const uint8_t* from, int32_t width, uint8_t* rgb) {
  for (int32_t x = 0; x < width; ++x, from += kBytes, rgb += 3) {
    rgb[0] = from[kRed];
    rgb[1] = from[1];
    rgb[2] = from[kBlue];
  }
}

void spread_grey(const uint8_t* grey, int32_t width, uint8_t* rgb) {
  for (int32_t x = 0; x < width; ++x, rgb += 3) {
    rgb[0] = rgb[1] = rgb[2] = grey[x];
  }
}

// ITU-R BT.601, limited range, in 20 fractional bits: 255/219 for luma, 1.596, -0.813, -0.391,
// 2.018 for chroma, in OpenCV's rounding.
constexpr int32_t kBits = 20;
constexpr int32_t kLuma = 1220542;
constexpr int32_t kRedOfV = 1673527;
constexpr int32_t kGreenOfV = -852492;
constexpr int32_t kGreenOfU = -409993;
constexpr int32_t kBlueOfU = 2116026;

uint8_t to_byte(int32_t value) {
  return static_cast<uint8_t>(std::clamp(value >> kBits, 0, 255));
}

void read_nv12_row(const uint8_t* luma, const uint8_t* chroma, int32_t width, uint8_t* rgb) {
  constexpr int32_t half = 1 << (kBits - 1);
  for (int32_t x = 0; x < width; x += 2) {
    const int32_t u = chroma[x] - 128;
    const int32_t v = chroma[x + 1] - 128;
    const int32_t red = half + kRedOfV * v;
    const int32_t green = half + kGreenOfV * v + kGreenOfU * u;
    const int32_t blue = half + kBlueOfU * u;
    for (int32_t pixel = x; pixel < x + 2; ++pixel, rgb += 3) {
      const int32_t light = std::max(0, luma[pixel] - 16) * kLuma;
      rgb[0] = to_byte(light + red);
      rgb[1] = to_byte(light + green);
      rgb[2] = to_byte(light + blue);
    }
  }
}

}  // namespace

size_t Pixels::row_bytes() const {
  return static_cast<size_t>(size.width) * bytes_per_pixel(format);
}

Pixels check_image(const cn2_image& image, Name what) {
  if (image.format < CN2_RGB8 || image.format > CN2_NV12) {
    invalid(what, ": expected a format from CN2_RGB8 (0) to CN2_NV12 (5), got ", image.format);
  }
  if (image.memory != CN2_HOST && image.memory != CN2_CUDA) {
    invalid(what, ": expected memory CN2_HOST (0) or CN2_CUDA (1), got ", image.memory);
  }
  check_size(image, what);
  if (image.data == nullptr) {
    invalid(what, ": expected pixels, got a null pointer");
  }
  Pixels pixels;
  pixels.format = image.format;
  pixels.memory = image.memory;
  pixels.size = {image.height, image.width};
  pixels.data = static_cast<const uint8_t*>(image.data);
  pixels.pitch = check_pitch(image.pitch, pixels.row_bytes(), "pitch", what);
  if (image.format == CN2_NV12) {
    const size_t chroma_pitch = image.chroma_pitch == 0 ? pixels.pitch : image.chroma_pitch;
    pixels.chroma_pitch = check_pitch(chroma_pitch, pixels.row_bytes(), "chroma_pitch", what);
    pixels.chroma = image.chroma != nullptr
                        ? static_cast<const uint8_t*>(image.chroma)
                        : pixels.data + pixels.pitch * static_cast<size_t>(image.height);
  }
  return pixels;
}

PixelLayout layout_of(int32_t format) {
  switch (format) {
    case CN2_RGB8:
      return {3, 0, 1, 2};
    case CN2_BGR8:
      return {3, 2, 1, 0};
    case CN2_RGBA8:
      return {4, 0, 1, 2};
    case CN2_BGRA8:
      return {4, 2, 1, 0};
    default:
      return {0, 0, 0, 0};
  }
}

void read_rgb_row(const Pixels& picture, int32_t y, uint8_t* rgb) {
  const uint8_t* row = picture.data + static_cast<size_t>(y) * picture.pitch;
  const int32_t width = picture.size.width;
  switch (picture.format) {
    case CN2_RGB8:
      std::memcpy(rgb, row, picture.row_bytes());
      return;
    case CN2_BGR8:
      return copy_row<3, 2, 0>(row, width, rgb);
    case CN2_RGBA8:
      return copy_row<4, 0, 2>(row, width, rgb);
    case CN2_BGRA8:
      return copy_row<4, 2, 0>(row, width, rgb);
    case CN2_GREY8:
      return spread_grey(row, width, rgb);
    default:
      return read_nv12_row(row, picture.chroma + static_cast<size_t>(y / 2) * picture.chroma_pitch,
                           width, rgb);
  }
}

const uint8_t* rgb_row(const Pixels& picture, int32_t y, uint8_t* scratch) {
  if (picture.format == CN2_RGB8) {
    return picture.data + static_cast<size_t>(y) * picture.pitch;
  }
  read_rgb_row(picture, y, scratch);
  return scratch;
}

}  // namespace cn2
