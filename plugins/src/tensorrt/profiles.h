// The batches and canvases that an engine was built for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../canvas.h"
#include "module.h"

namespace cn2 {

struct Range {
  int64_t least, most;
  bool has(int64_t value) const { return value >= least && value <= most; }
};

struct Profile {
  Range batch, height, width;

  bool takes(Size canvas) const { return height.has(canvas.height) && width.has(canvas.width); }
};

// In the engine's order; at least one. Throws Error (CN2_MODEL_ERROR), naming `path`: what
// TensorRT gives is none.
std::vector<Profile> read_profiles(const cn2_tensorrt_module& module,
                                   const cn2_tensorrt_engine* engine, const std::string& path);

// The number of the first profile for these canvases. Throws Error (CN2_INVALID_ARGUMENT), with the
// limits: there is none.
int32_t choose_profile(const std::vector<Profile>& profiles, int32_t batch, Size canvas);

// The batch of a run for `waiting` pictures: the most of them, then the fewest blank canvases.
// Throws as choose_profile.
int32_t choose_batch(const std::vector<Profile>& profiles, Size canvas, int64_t waiting);

}  // namespace cn2
