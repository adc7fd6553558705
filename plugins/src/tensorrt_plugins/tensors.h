// Shapes of tensors as TensorRT gives them: checks, and expressions for those to come.
#pragma once

#include <NvInferRuntime.h>

#include <initializer_list>
#include <span>

#include "feature_type.h"
#include "fields.h"

namespace cn2 {

// What an input or output is made of. All features of a call are of one type.
enum class Kind { kFloat, kInt, kFeature };

// The tensors of one call. A size is known, or the largest that a profile allows.
struct Sizes {
  std::span<const nvinfer1::Dims> inputs;

  // Throws PluginError unless an input is there and of this shape; -1 fits any size. Its sizes.
  const int64_t* expect(size_t input, const char* name, std::initializer_list<int64_t> shape) const;
};

// An input's shape while TensorRT builds; throws PluginError unless it is there and has so many dimensions.
const nvinfer1::DimsExprs& expect_rank(std::span<const nvinfer1::DimsExprs> inputs, size_t input,
                                       const char* name, int32_t rank);

// "[2, any, 4]"
std::string describe(std::span<const int64_t> shape);

// Shapes of outputs, of what TensorRT knows of the inputs' while it builds.
class ShapeMaker {
 public:
  using Size = const nvinfer1::IDimensionExpr*;

  explicit ShapeMaker(nvinfer1::IExprBuilder& builder) : builder_(builder) {}

  Size number(int64_t value) { return builder_.constant(value); }
  Size sum(Size a, Size b) { return make(nvinfer1::DimensionOperation::kSUM, a, b); }
  Size floor_div(Size a, Size b) { return make(nvinfer1::DimensionOperation::kFLOOR_DIV, a, b); }

  static nvinfer1::DimsExprs shape(std::initializer_list<Size> sizes);

 private:
  Size make(nvinfer1::DimensionOperation operation, Size a, Size b) {
    return builder_.operation(operation, *a, *b);
  }

  nvinfer1::IExprBuilder& builder_;
};

}  // namespace cn2
