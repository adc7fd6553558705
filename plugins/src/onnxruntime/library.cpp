#include "onnxruntime/library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string_view>
#include <vector>

#include "beside.h"
#include "error.h"
#include "log.h"
#include "onnxruntime/ops.h"

namespace cn2 {
namespace {

constexpr std::string_view kName = "libonnxruntime.so";
constexpr const char* kSystemNames[] = {"libonnxruntime.so.1", "libonnxruntime.so"};

// Where to look, in this order; what dlopen takes.
std::vector<std::string> places(const std::string& path) {
  if (!path.empty()) {
    return {path};
  }
  const char* named = std::getenv("CN2_ONNXRUNTIME");
  if (named != nullptr && *named != '\0') {
    return {named};
  }
  std::vector<std::string> all;
  if (std::string loaded = find_loaded(kName); !loaded.empty()) {
    all.push_back(std::move(loaded));
  }
  all.push_back(find_in_folder(site_packages() / "onnxruntime" / "capi", kName));
  all.insert(all.end(), std::begin(kSystemNames), std::end(kSystemNames));
  return all;
}

using GetApiBase = const OrtApiBase*(ORT_API_CALL*)();

// What the library at this place offers; or why it cannot be used.
OrtLibrary ask(void* handle, const std::string& place) {
  const auto base = reinterpret_cast<GetApiBase>(dlsym(handle, "OrtGetApiBase"));
  if (base == nullptr) {
    fail(CN2_UNAVAILABLE, place, ": expected the library of ONNX Runtime, found no OrtGetApiBase");
  }
  const std::string version = base()->GetVersionString();
  const OrtApi* api = base()->GetApi(kOrtApiVersion);
  if (api == nullptr) {
    fail(CN2_UNAVAILABLE, place, ": expected ONNX Runtime 1.", kOrtApiVersion, " or newer, got ",
         version);
  }
  return {api, version, place};
}

}  // namespace

OrtLibrary load_onnxruntime(const std::string& path) {
  std::string tried;
  for (const std::string& place : places(path)) {
    if (void* handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      return ask(handle, place);
    }
    const char* reason = dlerror();
    log(CN2_LOG_DEBUG,
        text("ONNX Runtime: not at ", place, " (", reason == nullptr ? "" : reason, ")"));
    tried += text(tried.empty() ? "" : ", ", place);
    if (!path.empty()) {
      tried += text(" (", reason == nullptr ? "" : shorten(reason), ")");
    }
  }
  fail(CN2_UNAVAILABLE, "ONNX Runtime: expected its library at one of: ", tried,
       "; pip install onnxruntime, or set CN2_ONNXRUNTIME to its path");
}

}  // namespace cn2
