// The log of the plugins: TensorRT's, where it has given one, else standard error. The finder is
// TensorRT 10's; where 11's and RTX's is asked as if it were, its first method returns 0, no log.
#pragma once

#include <NvInferRuntime.h>

#include <string>

namespace cn2 {

// Null: none from now on.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// One line: "cn2 NAME: what".
void log_plugin_error(const char* name, const char* what) noexcept;

}  // namespace cn2
