#include "onnxruntime/library.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "error.h"
#include "log.h"
#include "onnxruntime/ops.h"

namespace cn2 {
namespace {

constexpr std::string_view kName = "libonnxruntime.so";
constexpr const char* kSystemNames[] = {"libonnxruntime.so.1", "libonnxruntime.so"};

bool is_onnxruntime(std::string_view path) {
  const std::string_view name = path.substr(path.find_last_of('/') + 1);
  return name == kName || name.starts_with(std::string(kName) + ".");
}

// The path of a library of that name that this process has loaded; empty: none.
std::string find_loaded() {
  std::string found;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* result) {
        if (!is_onnxruntime(info->dlpi_name)) {
          return 0;
        }
        *static_cast<std::string*>(result) = info->dlpi_name;
        return 1;
      },
      &found);
  return found;
}

// site-packages/onnxruntime/capi where this library is site-packages/cn2/plugins/lib/libcn2.so.
std::filesystem::path package_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&package_folder), &info) == 0) {
    return {};
  }
  std::error_code error;
  const auto file = std::filesystem::weakly_canonical(info.dli_fname, error);
  return file.parent_path().parent_path().parent_path().parent_path() / "onnxruntime" / "capi";
}

// The library in that folder; the folder itself with "libonnxruntime.so.*" where there is none.
std::string find_in_package() {
  const std::filesystem::path folder = package_folder();
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (is_onnxruntime(entry->path().native())) {
      return entry->path();
    }
  }
  return folder / (std::string(kName) + ".*");
}

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
  if (std::string loaded = find_loaded(); !loaded.empty()) {
    all.push_back(std::move(loaded));
  }
  all.push_back(find_in_package());
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
