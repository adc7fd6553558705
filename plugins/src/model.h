// An opened model file: what it says of itself, and the engine that runs it.
#pragma once

#include <memory>
#include <string>

#include "engine.h"
#include "manifest.h"

namespace cn2 {

// Never changes; shared by the model's handle and its contexts, so that either may go first.
struct Model {
  std::string path;
  std::string manifest_json;
  Manifest manifest;
  std::unique_ptr<Engine> engine;
  std::string runtime;  // the engine's description
};

// Throws Error as cn2_model_open says.
std::shared_ptr<const Model> open_model(const std::string& path, const EngineOptions& options);

// "cpu", "cuda", "cuda:1" -> the CUDA device's number. Throws Error (CN2_INVALID_ARGUMENT): none of
// these.
std::optional<int> parse_device(const std::string& device);

}  // namespace cn2
