#include "onnxruntime/handles.h"

#include <string_view>

namespace cn2 {
namespace {

// How ONNX Runtime tells that memory is short; it has no code for it.
constexpr std::string_view kShortOfMemory[] = {"bad_alloc", "Failed to allocate memory",
                                               "out of memory"};

}  // namespace

OrtFailure take_failure(const OrtApi& api, OrtStatus* status) {
  const OrtHandle<OrtStatus> owner = [&] {
    OrtHandle<OrtStatus> handle(api.ReleaseStatus);
    *handle.out() = status;
    return handle;
  }();
  const char* said = api.GetErrorMessage(status);
  OrtFailure failure{shorten(said), false};
  for (const std::string_view words : kShortOfMemory) {
    failure.out_of_memory |= std::string_view(said).find(words) != std::string_view::npos;
  }
  return failure;
}

}  // namespace cn2
