// A library for ONNX Runtime with the operators of its CUDA provider, over emulated kernels, as the CPU's.
#include <deque>

#include "operator.h"

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  static std::deque<OrtCustomOp> operators;
  static OrtCustomOpDomain* domain = nullptr;
  const OrtApi& api = *base->GetApi(cn2::kOrtApiVersion);
  return cn2::catch_all(api, "cn2", [&] {
    if (domain == nullptr) {
      cn2::throw_failure(api, api.CreateCustomOpDomain("cn2", &domain));
      for (const OrtCustomOp* op : cn2::cuda_operators()) {
        OrtCustomOp& copy = operators.emplace_back(*op);  // they keep nothing in themselves
        copy.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
        cn2::throw_failure(api, api.CustomOpDomain_Add(domain, &copy));
      }
    }
    cn2::throw_failure(api, api.AddCustomOpDomain(options, domain));
  });
}
