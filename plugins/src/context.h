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
  float device_preprocess_ms = 0;
  float device_inference_ms = 0;
};

// What a call asks for; see cn2_detect_options.
struct CallOptions {
  float score_threshold = -1;
  void* cuda_stream = nullptr;
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

  // Both throw Error as cn2_detect and cn2_infer say.
  void detect(const ImageList& images, const CallOptions& options, const DetectionSink& sink);
  EngineOutput infer(const EngineInput& input, const CallOptions& options);

  const Timings& timings() const { return timings_; }

 private:
  // A picture and what the model's rule makes of it.
  struct Placed {
    Pixels pixels;
    Size resized, canvas;
    size_t index;  // among the call's pictures
  };

  // Pictures of one canvas that run together, and what must stay until they are done.
  struct Group {
    const Placed* pictures = nullptr;
    size_t count = 0;
    std::vector<int32_t> sizes;  // of the pictures on the canvases
    std::vector<Pixels> pixels;  // those in device memory
    EngineInput input;
  };

  EngineInput check_options(const CallOptions& options) const;
  void plan(const ImageList& images);
  void run_groups(const EngineInput& call, const DetectionSink& sink);
  void take(Group& group, size_t first) const;
  void fill(Group& group, size_t slot);
  void stack(Group& group, size_t slot);
  void place(const Placed& placed, uint8_t* canvas, void* stream);
  void begin(size_t slot, const EngineInput& input);
  EngineOutput finish(size_t slot, int32_t batch);
  void complete(size_t slot, const DetectionSink& sink);

  std::shared_ptr<const Model> model_;
  std::unique_ptr<EngineRun> engine_run_;
  Resizer resizer_;
  std::vector<Placed> placed_;
  std::vector<Group> groups_;  // one for each slot
  CudaCopier cuda_;
  Timings timings_;
};

}  // namespace cn2
