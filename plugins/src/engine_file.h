// TensorRT's .engine files: a raw plan, and beside it MODEL.engine.json, {"manifest": {...},
// "sha256": "..."}.
#pragma once

#include <memory>
#include <string>

#include "engine.h"

namespace cn2 {

// The manifest, JSON. Throws Error (CN2_MODEL_ERROR): a file is missing or torn, or the plan's hash
// is not the one in the JSON; this is found out before anything else looks at the plan.
std::string read_engine_manifest(const std::string& path);

// Throws Error (CN2_UNAVAILABLE): this library has been built without TensorRT.
std::unique_ptr<Engine> open_tensorrt_engine(const std::string& path, const Manifest& manifest,
                                             const EngineOptions& options);

}  // namespace cn2
