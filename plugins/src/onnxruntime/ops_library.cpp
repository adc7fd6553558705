// libcn2_ort_ops: what ONNX Runtime calls after it has loaded the library.
#include "ops.h"

// The version of the domain cn2 (docs/operators.md), which whoever loads the library compares with its own.
extern "C" __attribute__((visibility("default"))) uint32_t cn2_operators_version(void) {
  return 1;
}

// Whether they run on ONNX Runtime's CUDA provider, too.
extern "C" __attribute__((visibility("default"))) int32_t cn2_operators_run_on_cuda(void) {
  return cn2::have_cuda_operators() ? 1 : 0;
}

extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL
RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(cn2::kOrtApiVersion);
  if (api != nullptr) {
    return cn2::register_ops(api, options);
  }
  // Too old for that; the first version has CreateStatus already, at the same place.
  return base->GetApi(1)->CreateStatus(
      ORT_FAIL,
      "libcn2_ort_ops: expected ONNX Runtime 1.17 or newer, got an older one; upgrade it");
}
