// What TensorRT says: its log on to libcn2's, and the errors of a call, kept until they are asked
// for. No function of it throws.
#pragma once

#include <NvInferRuntime.h>

#include <atomic>
#include <mutex>

#include "module.h"

namespace cn2 {

// One line of bounded length.
struct Line {
  char text[CN2_TENSORRT_WHY] = "";

  void assign(const char* said) noexcept;
};

// False, so that a failing function can return it.
bool explain(cn2_tensorrt_why* why, const Line& said) noexcept;
bool explain(cn2_tensorrt_why* why, const char* said) noexcept;

class Logger final : public nvinfer1::ILogger {
 public:
  // The only one, which is never destroyed: TensorRT keeps the first that it is given, whatever
  // runtimes come and go. Its lines go to `target` from now on.
  static Logger& get(cn2_tensorrt_log target) noexcept;

  void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override;

 private:
  std::atomic<cn2_tensorrt_log> log_ = nullptr;
};

// Before a call, on the thread that makes it: what was logged until now is no error of it.
void forget_errors() noexcept;

// The first error that this thread logged since; if there is none, `otherwise`.
Line first_error(const char* otherwise) noexcept;

class ErrorRecorder final : public nvinfer1::IErrorRecorder {
 public:
  // The first error since `clear`; if there is none, `otherwise`.
  Line first(const char* otherwise) const noexcept;

  int32_t getNbErrors() const noexcept override;
  nvinfer1::ErrorCode getErrorCode(int32_t index) const noexcept override;
  ErrorDesc getErrorDesc(int32_t index) const noexcept override;
  bool hasOverflowed() const noexcept override;
  void clear() noexcept override;
  bool reportError(nvinfer1::ErrorCode code, ErrorDesc description) noexcept override;
  RefCount incRefCount() noexcept override;
  RefCount decRefCount() noexcept override;

 private:
  mutable std::mutex mutex_;  // TensorRT may report from threads of its own
  Line first_;
  nvinfer1::ErrorCode code_ = nvinfer1::ErrorCode::kSUCCESS;
  int32_t count_ = 0;
  std::atomic<RefCount> references_ = 0;
};

}  // namespace cn2
