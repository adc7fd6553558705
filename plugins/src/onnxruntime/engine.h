// ONNX Runtime as an engine, through its C interface.
#pragma once

#include <memory>
#include <string>

#include "../engine.h"

namespace cn2 {

// Throws Error: CN2_UNAVAILABLE (no ONNX Runtime, no CUDA), CN2_MODEL_ERROR (it cannot load the
// file, or the graph is not what the manifest says), CN2_OUT_OF_MEMORY.
std::unique_ptr<Engine> open_onnxruntime_engine(const std::string& path, const Manifest& manifest,
                                                const EngineOptions& options);

}  // namespace cn2
