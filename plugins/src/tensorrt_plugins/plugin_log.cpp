#include "plugin_log.h"

#include <atomic>
#include <cstdio>

namespace cn2 {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

}  // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept {
  logger_finder = finder;
}

void log_plugin_error(const char* name, const char* what) noexcept {
  char line[512];
  std::snprintf(line, sizeof line, "cn2 %s: %s", name, what);
  nvinfer1::ILoggerFinder* finder = logger_finder;
  nvinfer1::ILogger* logger = finder == nullptr ? nullptr : finder->findLogger();
  if (logger != nullptr) {
    logger->log(nvinfer1::ILogger::Severity::kERROR, line);
  } else {
    std::fprintf(stderr, "%s\n", line);
  }
}

}  // namespace cn2
