// The manifest: what a model file says of itself (docs/model-file.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "canvas.h"
#include "json.h"

namespace cn2 {

constexpr int64_t kManifestVersion = 2;  // the newest that this library reads

struct Manifest {
  std::string preset;
  std::vector<std::string> class_names;
  std::vector<int64_t> category_ids;  // the dataset's own id of each class
  CanvasRule canvas;
  int32_t batch = 0;  // pictures a run; 0: any number
  std::string precision;
  bool fused_ops = false;
  int32_t proposals = 0;   // 0: there is no second stage
  int32_t detections = 0;  // most per picture
  float score_threshold = 0;
  float lowest_score_threshold = 0;
};

// Throws Error (CN2_MODEL_ERROR), naming `source`: no JSON, a newer version, an unknown or missing
// key, a value of the wrong type or range. As strict as cn2.runtime.manifest; keys that stand
// twice, zero characters, and sizes beyond kLongestEdge are refused too.
Manifest read_manifest(std::string_view json, std::string_view source);

// The same, of a value that has been read already.
Manifest read_manifest(const json::Value& value, std::string_view source);

}  // namespace cn2
