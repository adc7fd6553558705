// In place of cuda_ops.cpp where there is no nvcc.
#include "operator.h"

namespace cn2 {

const bool kHaveCudaOperators = false;

std::vector<const OrtCustomOp*> cuda_operators() {
  return {};
}

}  // namespace cn2
