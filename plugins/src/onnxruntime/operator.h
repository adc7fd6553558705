// An OrtCustomOp made of a class that knows its signature, reads its attributes and computes.
#pragma once

#include <array>
#include <new>

#include "context.h"
#include "ops.h"

namespace cn2 {

// What an input or output of an operator may be.
struct Port {
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  OrtCustomOpInputOutputCharacteristic kind = INPUT_OUTPUT_REQUIRED;
};

inline constexpr Port kFloats{};
inline constexpr Port kInts{ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32};

// Call a function that may throw; what it throws becomes a status, with the operator's name in front.
template <typename Function>
OrtStatus* catch_all(const OrtApi& api, const char* name, const Function& function) noexcept {
  try {
    try {
      function();
      return nullptr;
    } catch (const OpError& error) {
      const std::string text = std::string(name) + ": " + error.what();
      return api.CreateStatus(ORT_INVALID_ARGUMENT, text.c_str());
    }
  } catch (...) {
    return api.CreateStatus(ORT_FAIL, "out of memory");
  }
}

// Op has kName, kProvider (null: the CPU), kInputs and kOutputs (arrays of Port; a variadic one stands last), a
// constructor from Attributes, and `void compute(const Context&) const`; both throw OpError.
template <typename Op>
class Operator : public OrtCustomOp {
 public:
  Operator() : OrtCustomOp{} {
    version = kOrtApiVersion;
    GetName = [](const OrtCustomOp*) { return Op::kName; };
    GetExecutionProviderType = [](const OrtCustomOp*) { return Op::kProvider; };
    GetInputTypeCount = [](const OrtCustomOp*) { return Op::kInputs.size(); };
    GetInputType = [](const OrtCustomOp*, size_t index) { return Op::kInputs[index].type; };
    GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
      return Op::kInputs[index].kind;
    };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
    GetOutputTypeCount = [](const OrtCustomOp*) { return Op::kOutputs.size(); };
    GetOutputType = [](const OrtCustomOp*, size_t index) { return Op::kOutputs[index].type; };
    GetOutputCharacteristic = [](const OrtCustomOp*, size_t index) {
      return Op::kOutputs[index].kind;
    };
    GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
    GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
    GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
    GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
    GetStartVersion = [](const OrtCustomOp*) { return 1; };
    GetEndVersion = [](const OrtCustomOp*) { return 1; };
    CreateKernelV2 = create;
    KernelComputeV2 = compute;
    KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  }

 private:
  struct Kernel {
    const OrtApi& api;
    Op op;
  };

  static OrtStatus* create(const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info,
                           void** kernel) noexcept {
    return catch_all(*api, Op::kName,
                     [&] { *kernel = new Kernel{*api, Op(Attributes(*api, info))}; });
  }

  static OrtStatus* compute(void* kernel, OrtKernelContext* context) noexcept {
    const auto& [api, op] = *static_cast<Kernel*>(kernel);
    return catch_all(api, Op::kName, [&] { op.compute(Context(api, context)); });
  }
};

// The operators, one of each for the process.
const OrtCustomOp& pyramid_roi_align_operator();
const OrtCustomOp& proposal_nms_operator();
const OrtCustomOp& detection_nms_operator();
const OrtCustomOp& half_pyramid_roi_align_operator();  // features in half precision

// Those for the CUDA provider; none where nvcc was not there.
extern const bool kHaveCudaOperators;
std::vector<const OrtCustomOp*> cuda_operators();

}  // namespace cn2
