// Read an ONNX file's manifest without an ONNX library, and refuse weights in other files.
#pragma once

#include <string>

namespace cn2 {

// The text under the key `cn2.manifest` of the file's metadata. Throws Error (CN2_MODEL_ERROR): no
// such file, not ONNX, torn, with weights in other files, or without a manifest.
std::string read_onnx_manifest(const std::string& path);

}  // namespace cn2
