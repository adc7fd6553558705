// A session of ONNX Runtime: made with our options, checked against the manifest.
#pragma once

#include <string>

#include "../engine.h"
#include "onnxruntime/handles.h"
#include "onnxruntime/library.h"

namespace cn2 {

struct OrtParts {
  explicit OrtParts(OrtLibrary loaded);

  OrtLibrary library;
  const OrtApi& api;
  OrtHandle<OrtEnv> environment;  // before the session, so that it goes after it
  OrtHandle<OrtSession> session;
  OrtHandle<OrtMemoryInfo> host, device;  // device: none where the model runs on the CPU
  OrtHandle<OrtRunOptions> run_options;
};

// Whether fused operators run by the kernels of this library. On CUDA their bodies do: the kernels
// are of the CPU, and features would go there and back.
bool uses_kernels(const Manifest& manifest, const EngineOptions& options);

// Throws Error as open_onnxruntime_engine does.
OrtParts open_session(const std::string& path, const Manifest& manifest,
                      const EngineOptions& options);

}  // namespace cn2
