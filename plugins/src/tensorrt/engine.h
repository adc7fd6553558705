// TensorRT and TensorRT-RTX as engines, through their module.
#pragma once

#include <memory>
#include <string>

#include "../engine.h"

namespace cn2 {

// Throws Error: CN2_UNAVAILABLE (no driver, no such device, no TensorRT, a version that is not
// known, no plugin library), CN2_MODEL_ERROR (TensorRT cannot load the plan, or it is not what the
// manifest says), CN2_OUT_OF_MEMORY.
std::unique_ptr<Engine> open_tensorrt_engine(const std::string& path, const Manifest& manifest,
                                             const EngineOptions& options);

}  // namespace cn2
