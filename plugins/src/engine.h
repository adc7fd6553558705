// What runs a model: the seam between libcn2 and ONNX Runtime, TensorRT, or a stub of the tests.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "error.h"
#include "manifest.h"
#include "pixels.h"

namespace cn2 {

// Pictures in the memory of the engine's CUDA device, to be resized there.
struct DevicePictures {
  const Pixels* pixels = nullptr;  // `count` of them
  size_t count = 0;                // at most the run's batch; further canvases are blank
  int32_t interpolation = 0;       // CN2_ANTIALIAS, CN2_LINEAR
};

// One run's inputs; the caller has checked them against the manifest.
struct EngineInput {
  const uint8_t* canvases =
      nullptr;  // [batch, height, width, 3] RGB, host memory; null: `pictures`
  int32_t batch = 0;
  int32_t height = 0;
  int32_t width = 0;
  const int32_t* picture_sizes = nullptr;  // [batch, 2] height, width
  std::optional<float> score_threshold{};  // none: the model's own
  void* cuda_stream = nullptr;             // whose work comes before; null: none
  DevicePictures pictures{};
};

// What a graph returns; the memory belongs to the run that made it, until its next call.
struct EngineOutput {
  int32_t rows = 0;                         // D, per picture
  const int32_t* num_detections = nullptr;  // [batch]
  const float* boxes = nullptr;             // [batch, D, 4] pixels of the resized picture
  const float* scores = nullptr;            // [batch, D] descending
  const int32_t* classes = nullptr;         // [batch, D]
  float device_preprocess_ms = 0;           // by the device's clock: until its canvases are there,
  float device_inference_ms = 0;            // and from then on; 0: not measured
};

// What one context needs to run the engine; by one thread at a time. A run begins in a slot, and its
// output is there once it is finished; runs of other slots may begin in between. All throw Error
// (CN2_INFERENCE_ERROR, CN2_OUT_OF_MEMORY; CN2_MODEL_ERROR: shapes that no graph of ours has).
class EngineRun {
 public:
  virtual ~EngineRun() = default;

  virtual size_t slots() const { return 1; }

  // Host memory for a slot's next canvases, from which the engine reads them fastest.
  virtual uint8_t* canvas_memory(size_t slot, size_t bytes) = 0;

  // Whether EngineInput::pictures may be given.
  virtual bool takes_device_pictures() const { return false; }

  // Throws Error (CN2_INVALID_ARGUMENT), naming `what`: the picture is not in its device's memory.
  virtual void check_device_picture(const Pixels& /*picture*/, Name /*what*/) const {}

  // All that `input` points to must stay until the run is finished.
  virtual void begin(size_t slot, const EngineInput& input) = 0;
  virtual EngineOutput finish(size_t slot) = 0;

  // Wait for what has begun, and drop it.
  virtual void abandon() noexcept {}
};

// One that computes on the host, or waits there: nothing happens before `finish`.
class DirectRun : public EngineRun {
 public:
  uint8_t* canvas_memory(size_t slot, size_t bytes) override;
  void begin(size_t slot, const EngineInput& input) override;
  EngineOutput finish(size_t slot) override;

 protected:
  virtual EngineOutput infer(const EngineInput& input) = 0;

 private:
  std::vector<uint8_t> canvases_;
  EngineInput input_;
};

// One opened model; any number of threads at once.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::unique_ptr<EngineRun> create_run() const = 0;

  // How many canvases the next run has where `waiting` pictures, at least one, wait for this one;
  // those that are left over are blank. Throws Error (CN2_INVALID_ARGUMENT): it takes no such
  // canvas.
  virtual int32_t batch_for(Size canvas, size_t waiting) const = 0;

  // "onnxruntime 1.32.0 on cpu, fused operators"
  virtual std::string description() const = 0;

  // The number of its CUDA device; none: it runs on the CPU.
  virtual std::optional<int> cuda_device() const = 0;
};

struct EngineOptions {
  int32_t threads = 0;               // CPU threads of one call; 0: one per core
  std::optional<int> cuda_device{};  // none: the CPU
  bool device_given = false;         // else an engine that needs CUDA takes the first device
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

// batch_for of an engine that takes any canvas.
int32_t any_batch(const Manifest& manifest, size_t waiting);

// Throws Error (CN2_MODEL_ERROR), naming `source`, unless counts and classes are in range.
void check_output(const Manifest& manifest, const EngineOutput& output, int32_t batch,
                  const std::string& source);

}  // namespace cn2
