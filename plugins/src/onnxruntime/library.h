// ONNX Runtime's shared library: found, loaded and asked for its C interface.
#pragma once

#include <onnxruntime_c_api.h>

#include <string>

namespace cn2 {

struct OrtLibrary {
  const OrtApi* api;
  std::string version;  // "1.32.0"
  std::string path;
};

// Loads the library at `path`; if empty, the first that is there of: $CN2_ONNXRUNTIME, one that the
// process has loaded, the Python package's beside libcn2, the system's. It stays loaded. Throws
// Error (CN2_UNAVAILABLE): none is there (the message names all places), or it is too old.
OrtLibrary load_onnxruntime(const std::string& path);

}  // namespace cn2
