// The files that libcn2 opens, and what runs each.
#include <algorithm>
#include <string_view>

#include "engine.h"
#include "engine_file.h"
#include "error.h"
#include "onnx_file.h"
#include "onnxruntime/engine.h"
#include "tensorrt/engine.h"

namespace cn2 {
namespace {

constexpr EngineReader kReaders[] = {
    {".onnx", read_onnx_manifest, open_onnxruntime_engine},
    {".engine", read_engine_manifest, open_tensorrt_engine},
};

// From the last dot of the file's name on, lower case; empty if it has none.
std::string suffix_of(const std::string& path) {
  const size_t dot = path.find_last_of("./");
  if (dot == std::string::npos || path[dot] == '/') {
    return "";
  }
  std::string suffix = path.substr(dot);
  std::transform(suffix.begin(), suffix.end(), suffix.begin(), [](char letter) {
    return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  });
  return suffix;
}

}  // namespace

const EngineReader& find_engine_reader(const std::string& path) {
  const std::string suffix = suffix_of(path);
  for (const EngineReader& reader : kReaders) {
    if (suffix == reader.suffix) {
      return reader;
    }
  }
  fail(CN2_MODEL_ERROR, path, ": expected a model file (.onnx, .engine), got '",
       suffix.empty() ? "none" : suffix, "'");
}

}  // namespace cn2
