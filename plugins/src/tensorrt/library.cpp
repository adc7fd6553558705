#include "tensorrt/library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "beside.h"
#include "error.h"
#include "log.h"

namespace cn2 {
namespace {

constexpr int32_t kOldestRtx = 10500;  // getInferLibVersion(); 1.4 has an interface of its own

// The names of the library, the likeliest first.
std::vector<std::string> names(const EngineSidecar& sidecar) {
  if (sidecar.is_rtx) {
    return {"libtensorrt_rtx.so.1"};
  }
  return sidecar.version.starts_with("10.")
             ? std::vector<std::string>{"libnvinfer.so.10", "libnvinfer.so.11"}
             : std::vector<std::string>{"libnvinfer.so.11", "libnvinfer.so.10"};
}

// Where to look, in this order; what dlopen takes.
std::vector<std::string> places(const std::string& path, const EngineSidecar& sidecar) {
  const char* named = std::getenv("CN2_TENSORRT");
  if (!path.empty() || (named != nullptr && *named != '\0')) {
    return {path.empty() ? named : path};
  }
  const std::vector<std::string> all_names = names(sidecar);
  const char* package = sidecar.is_rtx ? "tensorrt_rtx_libs" : "tensorrt_libs";
  std::vector<std::string> all;
  for (const std::string& name : all_names) {
    if (std::string loaded = find_loaded(name); !loaded.empty()) {
      all.push_back(std::move(loaded));
    }
  }
  for (const std::string& name : all_names) {
    all.push_back(site_packages() / package / name);
  }
  all.insert(all.end(), all_names.begin(), all_names.end());
  return all;
}

std::string version_text(int32_t number) {
  return text(number / 10000, ".", number / 100 % 100, ".", number % 100);
}

using LibraryVersion = int32_t (*)();

// What the library at this place is; or why it cannot be used. TensorRT-RTX counts from 1.
TensorrtLibrary ask(void* handle, const std::string& place) {
  const auto get_version = reinterpret_cast<LibraryVersion>(dlsym(handle, "getInferLibVersion"));
  if (get_version == nullptr) {
    fail(CN2_UNAVAILABLE, place,
         ": expected the library of TensorRT (libnvinfer or libtensorrt_rtx), found no "
         "getInferLibVersion");
  }
  const int32_t number = get_version();
  const int32_t major = number / 10000;
  if (major == 1 && number >= kOldestRtx) {
    return {handle, version_text(number), place, true, 11};
  }
  if (major != 10 && major != 11) {
    fail(CN2_UNAVAILABLE, place,
         ": expected TensorRT 10 or 11, or TensorRT-RTX 1.5 or a later 1, got version ",
         major == 0 ? text(number) : version_text(number),
         ", whose interface this libcn2 does not know; take one of these, or upgrade libcn2");
  }
  return {handle, version_text(number), place, false, static_cast<uint32_t>(major)};
}

}  // namespace

TensorrtLibrary load_tensorrt(const std::string& path, const EngineSidecar& sidecar) {
  std::string tried;
  const std::vector<std::string> all = places(path, sidecar);
  for (const std::string& place : all) {
    if (void* handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      const TensorrtLibrary found = ask(handle, place);
      if (found.is_rtx != sidecar.is_rtx) {
        fail(CN2_UNAVAILABLE, place, ": expected ", sidecar.is_rtx ? "TensorRT-RTX" : "TensorRT",
             ", which built this engine, got ", name_of(found));
      }
      return found;
    }
    const char* reason = dlerror();
    log(CN2_LOG_DEBUG,
        text("TensorRT: not at ", place, " (", reason == nullptr ? "" : reason, ")"));
    tried += text(tried.empty() ? "" : ", ", place);
    if (all.size() == 1) {
      tried += text(" (", reason == nullptr ? "" : shorten(reason), ")");
    }
  }
  fail(CN2_UNAVAILABLE, sidecar.is_rtx ? "TensorRT-RTX" : "TensorRT",
       ": expected its library at one of: ", tried, "; pip install ",
       sidecar.is_rtx ? "tensorrt-rtx-cu13" : "tensorrt-cu13", ", or set CN2_TENSORRT to its path");
}

const cn2_tensorrt_module& load_tensorrt_module(const TensorrtLibrary& library) {
  const std::string file = text("libcn2_tensorrt", library.abi, ".so");
  const std::string path = own_folder() / file;
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = dlerror();
    fail(CN2_UNAVAILABLE, name_of(library), ": expected ", file, " beside libcn2, which runs it (",
         reason == nullptr ? "" : shorten(reason), "); build libcn2 with the headers of TensorRT ",
         library.abi);
  }
  const auto get =
      reinterpret_cast<cn2_tensorrt_module_getter>(dlsym(handle, "cn2_tensorrt_module_get"));
  const cn2_tensorrt_module* module = get == nullptr ? nullptr : get();
  if (module == nullptr || module->version != CN2_TENSORRT_MODULE_VERSION ||
      module->abi != library.abi) {
    fail(CN2_UNAVAILABLE, path, ": expected a module for TensorRT ", library.abi, " of version ",
         CN2_TENSORRT_MODULE_VERSION, "; install libcn2 again, all of one version");
  }
  return *module;
}

std::string name_of(const TensorrtLibrary& library) {
  return text(library.is_rtx ? "TensorRT-RTX " : "TensorRT ", library.version);
}

}  // namespace cn2
