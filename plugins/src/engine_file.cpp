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

}  // namespace

std::string read_engine_manifest(const std::string& path) {
  const std::string sidecar = path + ".json";
  const MappedFile file(sidecar);
  const json::Value value = parse_sidecar(file.bytes(), sidecar);
  Fields fields(value, sidecar + ": ");
  const json::Value& manifest = fields.get("manifest");
  check_hash(path, sidecar, fields.string("sha256"));
  fields.finish();
  return std::string(manifest.written);
}

std::unique_ptr<Engine> open_tensorrt_engine(const std::string& path, const Manifest& /*manifest*/,
                                             const EngineOptions& /*options*/) {
  fail(CN2_UNAVAILABLE, path,
       ": TensorRT engines: not built into this libcn2; open the .onnx file");
}

}  // namespace cn2
