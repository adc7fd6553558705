// What runs a model: the seam between libcn2 and ONNX Runtime, TensorRT, or a stub of the tests.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "manifest.h"

namespace cn2 {

// One run's inputs; the caller has checked them against the manifest.
struct EngineInput {
  const uint8_t* canvases = nullptr;  // [batch, height, width, 3] RGB, host memory
  int32_t batch = 0;
  int32_t height = 0;
  int32_t width = 0;
  const int32_t* picture_sizes = nullptr;  // [batch, 2] height, width
  std::optional<float> score_threshold{};  // none: the model's own
};

// What a graph returns; the memory belongs to the run that made it, until its next call.
struct EngineOutput {
  int32_t rows = 0;                         // D, per picture
  const int32_t* num_detections = nullptr;  // [batch]
  const float* boxes = nullptr;             // [batch, D, 4] pixels of the resized picture
  const float* scores = nullptr;            // [batch, D] descending
  const int32_t* classes = nullptr;         // [batch, D]
};

// What one context needs to run the engine; by one thread at a time.
class EngineRun {
 public:
  virtual ~EngineRun() = default;

  // Throws Error (CN2_INFERENCE_ERROR, CN2_OUT_OF_MEMORY; CN2_MODEL_ERROR: shapes that no graph of
  // ours has).
  virtual EngineOutput infer(const EngineInput& input) = 0;
};

// One opened model; any number of threads at once.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::unique_ptr<EngineRun> create_run() const = 0;

  // "onnxruntime 1.32.0 on cpu, fused operators"
  virtual std::string description() const = 0;

  // The number of its CUDA device; none: it runs on the CPU.
  virtual std::optional<int> cuda_device() const = 0;
};

struct EngineOptions {
  int32_t threads = 0;               // CPU threads of one call; 0: one per core
  std::optional<int> cuda_device{};  // none: the CPU
  std::string runtime_path{};        // the library to load; empty: search
  bool standard_ops = false;         // do not use the kernels of this library
};

// How files of one suffix are opened.
struct EngineReader {
  const char* suffix;  // lower case, with its dot

  // The file's manifest, JSON, after all checks that can be made without an engine.
  std::string (*read_manifest)(const std::string& path);

  // Throws Error (CN2_MODEL_ERROR, CN2_UNAVAILABLE, CN2_OUT_OF_MEMORY).
  std::unique_ptr<Engine> (*open)(const std::string& path, const Manifest& manifest,
                                  const EngineOptions& options);
};

// The reader of a file by its name's suffix. Throws Error (CN2_MODEL_ERROR): no such.
// engine_readers.cpp has the library's; a test build links others in its place.
const EngineReader& find_engine_reader(const std::string& path);

// Throws Error (CN2_MODEL_ERROR), naming `source`, unless counts and classes are in range.
void check_output(const Manifest& manifest, const EngineOutput& output, int32_t batch,
                  const std::string& source);

}  // namespace cn2
