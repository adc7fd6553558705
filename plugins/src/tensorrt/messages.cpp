#include "messages.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace cn2 {
namespace {

thread_local Line logged_error;  // the first since forget_errors

// The numbers of cn2.h: debug, info, warning, error.
int32_t log_level(nvinfer1::ILogger::Severity severity) {
  using Severity = nvinfer1::ILogger::Severity;
  switch (severity) {
    case Severity::kINTERNAL_ERROR:
    case Severity::kERROR:
      return 3;
    case Severity::kWARNING:
      return 2;
    case Severity::kINFO:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

void Line::assign(const char* said) noexcept {
  const size_t length = std::min(std::strlen(said), sizeof(text) - 1);
  std::memcpy(text, said, length);
  text[length] = '\0';
}

bool explain(cn2_tensorrt_why* why, const char* said) noexcept {
  Line line;
  line.assign(said);
  std::memcpy(why->text, line.text, sizeof(why->text));
  return false;
}

bool explain(cn2_tensorrt_why* why, const Line& said) noexcept {
  return explain(why, said.text);
}

Logger& Logger::get(cn2_tensorrt_log target) noexcept {
  alignas(Logger) static unsigned char memory[sizeof(Logger)];
  static Logger* const logger = new (memory) Logger;
  logger->log_ = target;
  return *logger;
}

void Logger::log(Severity severity, nvinfer1::AsciiChar const* message) noexcept {
  const bool is_error = severity == Severity::kERROR || severity == Severity::kINTERNAL_ERROR;
  if (is_error && logged_error.text[0] == '\0') {
    logged_error.assign(message);
  }
  log_.load()(log_level(severity), message);
}

void forget_errors() noexcept {
  logged_error = {};
}

Line first_error(const char* otherwise) noexcept {
  Line said = logged_error;
  if (said.text[0] == '\0') {
    said.assign(otherwise);
  }
  return said;
}

Line ErrorRecorder::first(const char* otherwise) const noexcept {
  const std::lock_guard<std::mutex> guard(mutex_);
  Line said = first_;
  if (count_ == 0) {
    said.assign(otherwise);
  }
  return said;
}

int32_t ErrorRecorder::getNbErrors() const noexcept {
  const std::lock_guard<std::mutex> guard(mutex_);
  return std::min(count_, 1);
}

nvinfer1::ErrorCode ErrorRecorder::getErrorCode(int32_t) const noexcept {
  const std::lock_guard<std::mutex> guard(mutex_);
  return code_;
}

nvinfer1::IErrorRecorder::ErrorDesc ErrorRecorder::getErrorDesc(int32_t) const noexcept {
  return first_.text;
}

bool ErrorRecorder::hasOverflowed() const noexcept {
  const std::lock_guard<std::mutex> guard(mutex_);
  return count_ > 1;
}

void ErrorRecorder::clear() noexcept {
  const std::lock_guard<std::mutex> guard(mutex_);
  count_ = 0;
  first_ = {};
}

bool ErrorRecorder::reportError(nvinfer1::ErrorCode code, ErrorDesc description) noexcept {
  const std::lock_guard<std::mutex> guard(mutex_);
  if (count_++ == 0) {
    first_.assign(description);
    code_ = code;
  }
  return true;
}

nvinfer1::IErrorRecorder::RefCount ErrorRecorder::incRefCount() noexcept {
  return ++references_;
}

nvinfer1::IErrorRecorder::RefCount ErrorRecorder::decRefCount() noexcept {
  return --references_;
}

}  // namespace cn2
