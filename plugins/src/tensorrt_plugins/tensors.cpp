#include "tensors.h"

#include <algorithm>

namespace cn2 {

const int64_t* Sizes::expect(size_t input, const char* name,
                             std::initializer_list<int64_t> shape) const {
  if (input >= inputs.size()) {
    throw PluginError(std::string(name) + ": expected an input " + describe(shape) + ", got none");
  }
  const nvinfer1::Dims& dims = inputs[input];
  const std::span got(dims.d, static_cast<size_t>(std::max(dims.nbDims, 0)));
  const auto fits = [](int64_t a, int64_t b) { return b >= 0 && (a < 0 || a == b); };
  if (!std::equal(shape.begin(), shape.end(), got.begin(), got.end(), fits)) {
    throw PluginError(std::string(name) + ": expected " + describe(shape) + ", got " +
                      describe(got));
  }
  return dims.d;
}

const nvinfer1::DimsExprs& expect_rank(std::span<const nvinfer1::DimsExprs> inputs, size_t input,
                                       const char* name, int32_t rank) {
  const int32_t got = input < inputs.size() ? inputs[input].nbDims : -1;
  if (got != rank) {
    throw PluginError(std::string(name) + ": expected " + std::to_string(rank) +
                      " dimensions, got " + (got < 0 ? "no input" : std::to_string(got)));
  }
  return inputs[input];
}

std::string describe(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    text += (text.size() > 1 ? ", " : "") + (size < 0 ? "any" : std::to_string(size));
  }
  return text + "]";
}

nvinfer1::DimsExprs ShapeMaker::shape(std::initializer_list<Size> sizes) {
  nvinfer1::DimsExprs made{static_cast<int32_t>(sizes.size()), {}};
  std::copy(sizes.begin(), sizes.end(), made.d);
  return made;
}

}  // namespace cn2
