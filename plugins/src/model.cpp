#include "model.h"

#include <charconv>
#include <string_view>

#include "error.h"
#include "log.h"

namespace cn2 {

std::shared_ptr<const Model> open_model(const std::string& path, const EngineOptions& options) {
  const EngineReader& reader = find_engine_reader(path);
  auto model = std::make_shared<Model>();
  model->path = path;
  model->manifest_json = reader.read_manifest(path);
  model->manifest = read_manifest(model->manifest_json, path);
  model->engine = reader.open(path, model->manifest, options);
  model->runtime = model->engine->description();
  if (logs(CN2_LOG_INFO)) {
    log(CN2_LOG_INFO, text(path, ": ", model->runtime));
  }
  return model;
}

std::optional<int> parse_device(const std::string& device) {
  constexpr std::string_view prefix = "cuda:";
  if (device == "cpu") {
    return std::nullopt;
  }
  if (device == "cuda") {
    return 0;
  }
  int number = -1;
  const char* end = device.data() + device.size();
  const bool numbered = device.starts_with(prefix) && device.size() > prefix.size();
  if (!numbered || device[prefix.size()] == '-' ||
      std::from_chars(device.data() + prefix.size(), end, number).ptr != end || number < 0) {
    invalid("device: expected cpu, cuda or cuda:<number>, got '", shorten(device.c_str()), "'");
  }
  return number;
}

}  // namespace cn2
