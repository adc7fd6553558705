#include "engine_file.h"

#include "error.h"
#include "fields.h"
#include "json.h"
#include "mapped_file.h"
#include "sha256.h"

namespace cn2 {
namespace {

json::Value parse_sidecar(std::string_view bytes, const std::string& name) {
  try {
    return json::parse(bytes);
  } catch (const json::ParseError& error) {
    fail(CN2_MODEL_ERROR, name, ": no JSON (", error.what(), ")");
  }
}

void check_hash(const std::string& path, const std::string& sidecar, const std::string& expected) {
  const std::string found = sha256(MappedFile(path).bytes());
  if (found != expected) {
    fail(CN2_MODEL_ERROR, path, ": expected sha256 ", expected.substr(0, 64), " as ", sidecar,
         " says, got ", found, "; torn or mixed up, build it again");
  }
}

// The text of a key that an older sidecar lacks.
std::string optional_text(Fields& fields, std::string_view key) {
  return fields.find(key) == nullptr ? "" : fields.string(key);
}

// The value of a key; null where the value is no object, or lacks it.
const json::Value* member(const json::Value* value, std::string_view key) {
  const auto* object = value == nullptr ? nullptr : std::get_if<json::Object>(&value->held);
  if (object == nullptr) {
    return nullptr;
  }
  const auto found = object->find(key);
  return found == object->end() ? nullptr : &found->second;
}

// build.options.version_compatible, true
bool asks_for_host_code(const json::Value* build) {
  const json::Value* option = member(member(build, "options"), "version_compatible");
  const bool* said = option == nullptr ? nullptr : std::get_if<bool>(&option->held);
  return said != nullptr && *said;
}

}  // namespace

EngineSidecar read_engine_sidecar(const std::string& path) {
  const std::string name = path + ".json";
  const MappedFile file(name);
  const json::Value value = parse_sidecar(file.bytes(), name);
  Fields fields(value, name + ": ");
  EngineSidecar sidecar;
  sidecar.manifest_json = fields.get("manifest").written;
  sidecar.sha256 = fields.string("sha256");
  sidecar.is_rtx = fields.choice("runtime", {"tensorrt", "tensorrt-rtx"}) == "tensorrt-rtx";
  sidecar.version = optional_text(fields, "version");
  sidecar.is_version_compatible = asks_for_host_code(fields.find("build"));
  // For other readers; the plan itself says how it is to be run.
  for (const char* key : {"targets", "device", "profiles", "precision"}) {
    fields.find(key);
  }
  fields.finish();
  return sidecar;
}

std::string read_engine_manifest(const std::string& path) {
  EngineSidecar sidecar = read_engine_sidecar(path);
  check_hash(path, path + ".json", sidecar.sha256);
  return std::move(sidecar.manifest_json);
}

}  // namespace cn2
