// TensorRT's .engine files: a raw plan, and beside it MODEL.engine.json (docs/engines.md).
#pragma once

#include <string>

namespace cn2 {

// What stands beside a plan, as far as running it needs it.
struct EngineSidecar {
  std::string manifest_json;
  std::string sha256;   // of the plan
  bool is_rtx = false;  // built by TensorRT-RTX
  std::string version;  // of the library that built it: "10.14.1.48"; empty: not known
  bool is_version_compatible = false;  // built with --version-compatible: it brings code of its own
};

// Throws Error (CN2_MODEL_ERROR): the sidecar of the plan at `path` is missing or torn.
EngineSidecar read_engine_sidecar(const std::string& path);

// The manifest, JSON. Throws Error (CN2_MODEL_ERROR): a file is missing or torn, or the plan's hash
// is not the one in the JSON; this is found out before anything else looks at the plan.
std::string read_engine_manifest(const std::string& path);

}  // namespace cn2
