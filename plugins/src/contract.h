// The contract of exported models (docs/model-file.md): the inputs and outputs of a graph.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "manifest.h"

namespace cn2 {

inline constexpr std::array kInputNames = {"images", "image_sizes", "score_threshold"};
inline constexpr std::array kOutputNames = {"num_detections", "boxes", "scores", "classes"};

// One input or output.
struct Port {
  std::string name;
  std::string type;            // "uint8"
  std::vector<int64_t> shape;  // -1: any
};

// Throws Error (CN2_MODEL_ERROR) unless inputs, without the threshold, and outputs have the
// contract's names, types and dimensions, and the batch and canvas are the manifest's.
void check_contract(const std::vector<Port>& inputs, const std::vector<Port>& outputs,
                    const Manifest& manifest, const std::string& path);

// "(1, any, 3)"
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace cn2
