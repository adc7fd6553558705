// What features are made of on the GPU.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cn2 {

// Whatever it is, sums are float32, and so are boxes.
enum class FeatureType : int32_t { kFloat32 = 0, kFloat16 = 1 };

constexpr size_t bytes_of(FeatureType type) {
  return type == FeatureType::kFloat16 ? 2 : 4;
}

}  // namespace cn2
