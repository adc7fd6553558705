// IEEE half precision on the CPU, as its 16 bits.
#pragma once

#include <bit>
#include <cstdint>

namespace cn2 {

inline float float_of_half(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t rest = static_cast<uint32_t>(half & 0x7fffu) << 13;
  if (rest >= 0x1fu << 23) {  // infinite, or not a number
    return std::bit_cast<float>(sign | rest | 0xffu << 23);
  }
  // The exponent counts from 15 there and from 127 here; a product is right for subnormal ones, too.
  return std::bit_cast<float>(sign |
                              std::bit_cast<uint32_t>(std::bit_cast<float>(rest) * 0x1p112f));
}

// The nearest one; of two, the even one.
inline uint16_t half_of_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const float size = std::bit_cast<float>(bits & 0x7fffffffu);
  if (!(size < 65520.0f)) {  // what rounds to 65536
    return static_cast<uint16_t>(sign | (size != size ? 0x7e00u : 0x7c00u));
  }
  if (size < 0x1p-14f) {  // steps of 2^-24: the sum's last bit
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(size + 0.5f) - 0x3f000000u));
  }
  const uint32_t all = std::bit_cast<uint32_t>(size) - (112u << 23);
  return static_cast<uint16_t>(sign | (all + 0xfffu + (all >> 13 & 1u)) >> 13);
}

}  // namespace cn2
