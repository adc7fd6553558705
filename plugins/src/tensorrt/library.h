// TensorRT's shared library, found, loaded and asked for its version, and the module for it.
#pragma once

#include <cstdint>
#include <string>

#include "../engine_file.h"
#include "module.h"

namespace cn2 {

struct TensorrtLibrary {
  void* handle;
  std::string version;  // "10.14.1"
  std::string path;
  bool is_rtx;
  uint32_t abi;  // 10, 11: whose headers its C++ interface has
};

// Loads the library at `path`; if empty, the first that is there of: $CN2_TENSORRT, one that the
// process has loaded, the Python packages' beside libcn2, the system's; of TensorRT-RTX or of
// TensorRT as the sidecar says, the version that built the engine first. It stays loaded. Throws
// Error (CN2_UNAVAILABLE): none is there (the message names all places), or its version is not one
// of those that this library knows.
TensorrtLibrary load_tensorrt(const std::string& path, const EngineSidecar& sidecar);

// libcn2_tensorrt10 or 11, beside libcn2. Throws Error (CN2_UNAVAILABLE): it was not built.
const cn2_tensorrt_module& load_tensorrt_module(const TensorrtLibrary& library);

// "TensorRT 10.14.1", "TensorRT-RTX 1.7.1"
std::string name_of(const TensorrtLibrary& library);

}  // namespace cn2
