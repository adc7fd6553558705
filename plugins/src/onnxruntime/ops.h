// The operators of docs/operators.md as custom operators of ONNX Runtime.
#pragma once

#include <onnxruntime_c_api.h>

namespace cn2 {

// The version of ONNX Runtime's C interface that is used, that of 1.17; `api` below is GetApi of it.
inline constexpr uint32_t kOrtApiVersion = 17;

// Let sessions that are made with these options run the operators of domain `cn2`. May be called any number
// of times, from any thread, also for several ONNX Runtimes in one process. What it registers lives
// as long as the process. Returns null or, as ONNX Runtime's functions do, a status to be released.
// Those for the CUDA provider are among them where have_cuda_operators().
OrtStatus* register_ops(const OrtApi* api, OrtSessionOptions* options) noexcept;

// Whether the operators run on CUDA too: where not, a session on CUDA does better without them.
bool have_cuda_operators() noexcept;

}  // namespace cn2
