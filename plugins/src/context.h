// The buffers of one thread, and the way of its pictures: onto canvases, through the engine, to
// detections.
#pragma once

#include <cn2.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "cuda_memory.h"
#include "engine.h"
#include "model.h"
#include "resize.h"
#include "structs.h"

namespace cn2 {

// Milliseconds; cn2_timings without its struct_size.
struct Timings {
  float preprocess_ms = 0;
  float inference_ms = 0;
  float postprocess_ms = 0;
};

// Where detections go; see cn2_detect.
struct DetectionSink {
  cn2_detection* detections = nullptr;
  size_t capacity = 0;
  size_t* counts = nullptr;
};

class Context {
 public:
  explicit Context(std::shared_ptr<const Model> model);

  // Both throw Error as cn2_detect and cn2_infer say. A threshold below 0 is the model's own.
  void detect(const ImageList& images, float score_threshold, const DetectionSink& sink);
  EngineOutput infer(const EngineInput& input, float score_threshold);

  const Timings& timings() const { return timings_; }

 private:
  // A picture and what the model's rule makes of it.
  struct Placed {
    Pixels pixels;
    Size resized, canvas;
    size_t index;  // among the call's pictures
  };

  void plan(const ImageList& images);
  void run(const Placed* group, size_t count, std::optional<float> threshold,
           const DetectionSink& sink);
  EngineInput stack(const Placed* group, size_t count);
  void place(const Placed& placed, uint8_t* canvas);
  EngineOutput run_engine(const EngineInput& input);

  std::shared_ptr<const Model> model_;
  std::unique_ptr<EngineRun> engine_run_;
  Resizer resizer_;
  std::vector<Placed> placed_;
  std::vector<uint8_t> canvases_;
  std::vector<int32_t> sizes_;
  CudaCopier cuda_;
  Timings timings_;
};

}  // namespace cn2
