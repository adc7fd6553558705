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
  explicit Logger(cn2_tensorrt_log target) : log_(target) {}

  void log(Severity severity, nvinfer1::AsciiChar const* message) noexcept override;

  // The first error since this was last asked; if there is none, `otherwise`.
  Line last_error(const char* otherwise) noexcept;

 private:
  cn2_tensorrt_log log_;
  std::mutex mutex_;  // guards error_
  Line error_;
};

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
