#include "onnxruntime/session.h"

#include <array>
#include <string_view>

#include "log.h"
#include "onnxruntime/ops.h"

namespace cn2 {
namespace {

constexpr const char* kLogName = "cn2";

int32_t log_level(OrtLoggingLevel severity) {
  return severity >= ORT_LOGGING_LEVEL_ERROR     ? CN2_LOG_ERROR
         : severity == ORT_LOGGING_LEVEL_WARNING ? CN2_LOG_WARNING
                                                 : CN2_LOG_INFO;
}

void ORT_API_CALL write_log(void*, OrtLoggingLevel severity, const char*, const char*,
                            const char* where, const char* message) {
  if (!logs(log_level(severity))) {
    return;
  }
  try {
    log(log_level(severity), text("onnxruntime: ", shorten(message), " (", where, ")"));
  } catch (...) {
    log(CN2_LOG_ERROR, "onnxruntime: an error, and no memory to tell which");
  }
}

// Throws CN2_UNAVAILABLE unless CUDA is there; it would silently become the CPU else.
void add_cuda(const OrtLibrary& library, OrtSessionOptions* options, int device) {
  const OrtApi& api = *library.api;
  OrtHandle<OrtCUDAProviderOptionsV2> cuda(api.ReleaseCUDAProviderOptions);
  const auto check = [&](OrtStatus* status) {
    check_ort(api, status, CN2_UNAVAILABLE, "device 'cuda:", device, "': ONNX Runtime ",
              library.version, " at ", library.path, " cannot use CUDA; cn2 doctor says more");
  };
  check(api.CreateCUDAProviderOptions(cuda.out()));
  const std::string number = text(device);
  const std::array keys = {"device_id", "use_tf32", "cudnn_conv_algo_search"};
  const std::array values = {number.c_str(), "0",
                             "HEURISTIC"};  // EXHAUSTIVE: anew for every canvas
  check(api.UpdateCUDAProviderOptions(cuda.get(), keys.data(), values.data(), keys.size()));
  check(api.SessionOptionsAppendExecutionProvider_CUDA_V2(options, cuda.get()));
}

OrtHandle<OrtSessionOptions> make_options(const OrtLibrary& library, const Manifest& manifest,
                                          const EngineOptions& options) {
  const OrtApi& api = *library.api;
  const auto check = [&](OrtStatus* status) {
    check_ort(api, status, CN2_INTERNAL_ERROR, "ONNX Runtime refuses an option");
  };
  OrtHandle<OrtSessionOptions> made(api.ReleaseSessionOptions);
  check(api.CreateSessionOptions(made.out()));
  check(api.SetUserLoggingFunction(made.get(), write_log, nullptr));
  check(api.SetSessionLogSeverityLevel(made.get(), ORT_LOGGING_LEVEL_ERROR));
  check(api.SetIntraOpNumThreads(made.get(), options.threads));
  if (options.cuda_device) {
    add_cuda(library, made.get(), *options.cuda_device);
  }
  if (uses_kernels(manifest, options)) {
    check(register_ops(&api, made.get()));
  }
  return made;
}

// A device starts with the session: no such number, or a driver that is too old, shows only here.
[[noreturn]] void refuse(const OrtParts& parts, const std::string& path,
                         const EngineOptions& options, const OrtFailure& failure) {
  if (failure.out_of_memory) {
    fail(CN2_OUT_OF_MEMORY, path, ": ONNX Runtime ", parts.library.version, " cannot load it (",
         failure.reason, ")");
  }
  if (options.cuda_device && failure.reason.find("CUDA") != std::string::npos) {
    fail(CN2_UNAVAILABLE, "device 'cuda:", *options.cuda_device, "': ONNX Runtime ",
         parts.library.version, " cannot start it (", failure.reason, "); cn2 doctor says more");
  }
  fail(CN2_MODEL_ERROR, path, ": ONNX Runtime ", parts.library.version, " cannot load it (",
       failure.reason, ")");
}

}  // namespace

OrtParts::OrtParts(OrtLibrary loaded)
    : library(std::move(loaded)),
      api(*library.api),
      environment(api.ReleaseEnv),
      session(api.ReleaseSession),
      host(api.ReleaseMemoryInfo),
      device(api.ReleaseMemoryInfo),
      run_options(api.ReleaseRunOptions) {
  const auto check = [&](OrtStatus* status) {
    check_ort(api, status, CN2_UNAVAILABLE, "ONNX Runtime ", library.version, " at ", library.path,
              " does not start");
  };
  check(api.CreateEnvWithCustomLogger(write_log, nullptr, ORT_LOGGING_LEVEL_ERROR, kLogName,
                                      environment.out()));
  check(api.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, host.out()));
  check(api.CreateRunOptions(run_options.out()));
  check(api.RunOptionsSetRunLogSeverityLevel(run_options.get(), ORT_LOGGING_LEVEL_FATAL));
}

bool uses_kernels(const Manifest& manifest, const EngineOptions& options) {
  return manifest.fused_ops && !options.standard_ops &&
         (!options.cuda_device || have_cuda_operators());
}

OrtParts open_session(const std::string& path, const Manifest& manifest,
                      const EngineOptions& options) {
  OrtParts parts(load_onnxruntime(options.runtime_path));
  const auto made = make_options(parts.library, manifest, options);
  OrtStatus* status = parts.api.CreateSession(parts.environment.get(), path.c_str(), made.get(),
                                              parts.session.out());
  if (status != nullptr) {
    refuse(parts, path, options, take_failure(parts.api, status));
  }
  if (options.cuda_device) {
    check_ort(parts.api,
              parts.api.CreateMemoryInfo("Cuda", OrtDeviceAllocator, *options.cuda_device,
                                         OrtMemTypeDefault, parts.device.out()),
              CN2_INTERNAL_ERROR, "ONNX Runtime has no name for CUDA memory");
  }
  return parts;
}

}  // namespace cn2
