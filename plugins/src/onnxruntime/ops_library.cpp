// libcn2_ort_ops: what ONNX Runtime calls after it has loaded the library.
#include "ops.h"

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
