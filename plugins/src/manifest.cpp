#include "manifest.h"

#include <limits>

#include "fields.h"

namespace cn2 {
namespace {

constexpr int64_t kAnyNumber = std::numeric_limits<int64_t>::max();
constexpr int32_t kLargestBatch = 1 << 16;
constexpr int32_t kMostDetections = 1 << 20;

int64_t read_version(const json::Value& value, std::string_view source) {
  const auto* object = std::get_if<json::Object>(&value.held);
  const json::Value* found = nullptr;
  if (object != nullptr && object->contains("format_version")) {
    found = &object->find("format_version")->second;
  }
  const auto* version = found == nullptr ? nullptr : std::get_if<int64_t>(&found->held);
  if (version == nullptr || *version < 1) {
    fail(CN2_MODEL_ERROR, source, ": expected a cn2 manifest with a format_version, got ",
         found == nullptr ? "none" : describe(*found));
  }
  if (*version > kManifestVersion) {
    fail(CN2_MODEL_ERROR, source, ": its manifest has format version ", *version,
         ", this libcn2 reads up to ", kManifestVersion,
         "; upgrade cn2, or export the model again with this version");
  }
  return *version;
}

Size read_fixed(Fields& canvas, const json::Value& value, int32_t divisor) {
  const auto* sides = std::get_if<json::Array>(&value.held);
  const auto side = [&](size_t index) -> int32_t {
    const auto* number = std::get_if<int64_t>(&(*sides)[index].held);
    const bool fits = number != nullptr && *number >= 1 && *number <= kLongestEdge;
    return fits && *number % divisor == 0 ? static_cast<int32_t>(*number) : 0;
  };
  if (sides == nullptr || sides->size() != 2 || side(0) == 0 || side(1) == 0) {
    canvas.refuse("fixed", text("a height and a width in multiples of ", divisor), value);
  }
  return {side(0), side(1)};
}

CanvasRule read_canvas(const json::Value& value, const std::string& place) {
  Fields canvas(value, place + "canvas: ");
  CanvasRule rule;
  rule.short_edge = static_cast<int32_t>(canvas.integer("short_edge", 1, kLongestEdge));
  rule.long_edge = static_cast<int32_t>(canvas.integer("long_edge", rule.short_edge, kLongestEdge));
  rule.divisor = static_cast<int32_t>(canvas.integer("divisor", 1, kLongestEdge));
  const auto interpolation = canvas.choice("interpolation", {"antialias", "linear"});
  rule.interpolation = interpolation == "linear" ? CN2_LINEAR : CN2_ANTIALIAS;
  rule.rounds_down = canvas.choice("rounding", {"nearest", "down"}) == "down";
  const json::Value* fixed = canvas.find("fixed");
  if (fixed != nullptr && !std::holds_alternative<std::nullptr_t>(fixed->held)) {
    rule.fixed = read_fixed(canvas, *fixed, rule.divisor);
  }
  canvas.finish();
  return rule;
}

std::vector<std::string> read_names(Fields& fields) {
  std::vector<std::string> names;
  for (const json::Value& value : fields.array("class_names")) {
    const auto* name = std::get_if<std::string>(&value.held);
    if (name == nullptr) {
      fields.refuse("class_names", "texts", value);
    }
    names.push_back(*name);
  }
  return names;
}

std::vector<int64_t> read_integers(Fields& fields, std::string_view key) {
  std::vector<int64_t> numbers;
  for (const json::Value& value : fields.array(key)) {
    const auto* number = std::get_if<int64_t>(&value.held);
    if (number == nullptr) {
      fields.refuse(key, "whole numbers", value);
    }
    numbers.push_back(*number);
  }
  return numbers;
}

void read_classes(Fields& fields, Manifest& manifest) {
  manifest.class_names = read_names(fields);
  manifest.category_ids = read_integers(fields, "category_ids");
  const size_t names = manifest.class_names.size();
  if (names == 0 || names != manifest.category_ids.size()) {
    fail(CN2_MODEL_ERROR, fields.place(),
         "expected a category id for each of at least one class, got ", names, " names and ",
         manifest.category_ids.size(), " ids");
  }
}

void read_sizes(Fields& fields, Manifest& manifest) {
  manifest.batch = fields.count_or_null("batch", true);
  manifest.proposals = fields.count_or_null("proposals", false);
  manifest.detections = static_cast<int32_t>(fields.integer("detections", 1, kMostDetections));
  if (manifest.batch > kLargestBatch) {
    fields.refuse("batch", text("at most ", kLargestBatch), *fields.find("batch"));
  }
  if (read_integers(fields, "strides").empty()) {
    fields.refuse("strides", "at least one", *fields.find("strides"));
  }
}

void read_thresholds(Fields& fields, Manifest& manifest) {
  const double threshold = fields.number("score_threshold", 0, 1);
  const double lowest = fields.number("lowest_score_threshold", 0, threshold);
  manifest.score_threshold = static_cast<float>(threshold);
  manifest.lowest_score_threshold = static_cast<float>(lowest);
}

// What this library does not need, but must not be wrong either.
void check_origin(Fields& fields) {
  for (const std::string_view key : {"checkpoint_sha256", "weights_license", "provenance"}) {
    if (fields.find(key) != nullptr) {
      fields.string(key);
    }
  }
  if (const json::Value* versions = fields.find("versions")) {
    Fields tools(*versions, fields.place() + "versions: ");
    for (const auto& [tool, version] : std::get<json::Object>(versions->held)) {
      tools.string(tool);
    }
  }
}

}  // namespace

Manifest read_manifest(std::string_view json, std::string_view source) {
  json::Value value;
  try {
    value = json::parse(json);
  } catch (const json::ParseError& error) {
    fail(CN2_MODEL_ERROR, source, ": its cn2 manifest is no JSON (", error.what(), ")");
  }
  return read_manifest(value, source);
}

Manifest read_manifest(const json::Value& value, std::string_view source) {
  read_version(value, source);
  Fields fields(value, text(source, ": its cn2 manifest is not valid: "));
  fields.integer("format_version", 1, kAnyNumber);
  Manifest manifest;
  manifest.preset = fields.string("preset");
  read_classes(fields, manifest);
  manifest.canvas = read_canvas(fields.get("canvas"), fields.place());
  read_sizes(fields, manifest);
  manifest.precision = fields.choice("precision", {"fp32", "fp16", "int8"});
  manifest.fused_ops = fields.choice("ops", {"standard", "fused"}) == "fused";
  fields.choice("score_rule", {"sqrt", "product", "class", "heatmap"});
  read_thresholds(fields, manifest);
  check_origin(fields);
  fields.finish();
  return manifest;
}

}  // namespace cn2
