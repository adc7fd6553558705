// The inputs and outputs of a session, against the contract of exported models
// (docs/model-file.md).
#pragma once

#include <string>

#include "onnxruntime/session.h"

namespace cn2 {

// Throws Error (CN2_MODEL_ERROR) unless inputs and outputs have the contract's names, types and
// dimensions, and the batch and canvas are the manifest's.
void check_graph(const OrtParts& parts, const Manifest& manifest, const std::string& path);

// Whether a threshold can be fed.
bool takes_threshold(const OrtParts& parts);

}  // namespace cn2
