#include "pyramid_roi_align.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "pooling.h"
#include "tasks.h"

namespace cn2 {
namespace {

constexpr size_t kRoisOfTask = 64;         // that are planned together
constexpr size_t kChannelsOfTask = 16;     // that are pooled together, at most
constexpr size_t kCachedFloats = 1 << 16;  // the planes of these channels are to stay in the cache
constexpr int64_t kFewFloats = 1 << 16;    // of the result: sooner done than shared among threads
constexpr int64_t kMostBins = 1024;
constexpr int64_t kMostSamples = 1024;

// The arguments of the call.
struct Call {
  const float* rois;
  const PyramidLevel* levels;
  size_t level_count;
  const float* borders;
  PyramidRoIAlignShape shape;
  float* pooled;
};

bool is_valid(const PyramidRoIAlignShape& shape) {
  const auto [batch, rois, channels, bins, sampling_ratio, canonical_size] = shape;
  return bins >= 1 && bins <= kMostBins && sampling_ratio >= 0 && sampling_ratio <= kMostSamples &&
         canonical_size > 0 && std::isfinite(canonical_size) && can_exist({batch, rois, 4}) &&
         can_exist({batch, rois, channels, bins, bins});
}

bool is_valid(const PyramidLevel& level, const PyramidRoIAlignShape& shape) {
  return level.stride >= 1 && can_exist({shape.batch, shape.channels, level.height, level.width});
}

bool is_valid(const Call& call) {
  const auto fits = [&](const PyramidLevel& level) { return is_valid(level, call.shape); };
  if (call.level_count < 1 || !is_valid(call.shape) ||
      !std::all_of(call.levels, call.levels + call.level_count, fits)) {
    return false;
  }
  const float* end = call.borders + call.level_count - 1;
  return std::none_of(call.borders, end, [](float border) { return std::isnan(border); }) &&
         std::is_sorted(call.borders, end);
}

struct Box {
  float x0, y0, x1, y1;
};

Box read_box(const float* roi) {
  const auto finite = [](float value) { return std::isfinite(value) ? value : 0.0f; };
  return {finite(roi[0]), finite(roi[1]), finite(roi[2]), finite(roi[3])};
}

size_t level_of(const Call& call, const Box& box) {
  const float area = (box.x1 - box.x0) * (box.y1 - box.y0);
  const float size = std::sqrt(area) / call.shape.canonical_size + 1e-8f;  // NaN: the first level
  const float* borders = call.borders;
  return static_cast<size_t>(std::count_if(borders, borders + call.level_count - 1,
                                           [size](float border) { return border <= size; }));
}

void plan_roi(const Call& call, const float* roi, std::vector<Tap>& scratch, Plans& plans) {
  const Box box = read_box(roi);
  const size_t index = level_of(call, box);
  const PyramidLevel& level = call.levels[index];
  const auto scale = static_cast<float>(1.0 / static_cast<double>(level.stride));
  const auto [bins, sampling] = std::pair{call.shape.output_size, call.shape.sampling_ratio};
  const Axis y{box.y0 * scale - 0.5f, box.y1 * scale - 0.5f, level.height, bins, sampling};
  const Axis x{box.x0 * scale - 0.5f, box.x1 * scale - 0.5f, level.width, bins, sampling};
  add_plan(index, y, x, scratch, plans);
}

// Channels of one picture, through all of its boxes, level by level: each plane is read from memory once.
void pool_picture(const Call& call, const Plans* plans, size_t plan_count, size_t picture,
                  size_t first_channel, size_t count) {
  const auto channels = static_cast<size_t>(call.shape.channels);
  const auto bins = static_cast<size_t>(call.shape.output_size);
  std::vector<float> scratch;
  for (size_t index = 0; index < call.level_count; ++index) {
    const PyramidLevel& level = call.levels[index];
    const auto width = static_cast<size_t>(level.width);
    const size_t plane = static_cast<size_t>(level.height) * width;
    const Channels source{level.data + (picture * channels + first_channel) * plane, plane, count};
    scratch.assign(scratch_size(bins, width), 0.0f);
    size_t place = picture * static_cast<size_t>(call.shape.rois);
    for (const Plans* part = plans; part < plans + plan_count; ++part) {
      for (const RoiPlan& roi : part->rois) {
        if (roi.level == index) {
          float* pooled = call.pooled + (place * channels + first_channel) * bins * bins;
          pool_channels(*part, roi, source, bins, scratch.data(), pooled);
        }
        ++place;
      }
    }
  }
}

size_t channels_of_task(const Call& call) {
  size_t largest = 1;
  for (size_t i = 0; i < call.level_count; ++i) {
    const int64_t plane = call.levels[i].height * call.levels[i].width;
    largest = std::max(largest, static_cast<size_t>(plane));
  }
  return std::clamp<size_t>(kCachedFloats / largest, 4, kChannelsOfTask);
}

Status run(const Call& call, const ThreadPool& threads) {
  const auto batch = static_cast<size_t>(call.shape.batch);
  const auto rois = static_cast<size_t>(call.shape.rois);
  const auto channels = static_cast<size_t>(call.shape.channels);
  const size_t parts = (rois + kRoisOfTask - 1) / kRoisOfTask;
  std::vector<Plans> plans(batch * parts);
  const Status planned = run_tasks(threads, batch * parts, [&](size_t index) {
    const size_t begin = index % parts * kRoisOfTask;
    const size_t end = std::min(begin + kRoisOfTask, rois);
    std::vector<Tap> scratch;
    for (size_t roi = begin; roi < end; ++roi) {
      plan_roi(call, call.rois + (index / parts * rois + roi) * 4, scratch, plans[index]);
    }
  });
  if (planned != Status::kOk) {
    return planned;
  }
  const size_t step = channels_of_task(call);
  const size_t blocks = (channels + step - 1) / step;
  return run_tasks(threads, batch * blocks, [&](size_t index) {
    const size_t picture = index / blocks;
    const size_t first = index % blocks * step;
    pool_picture(call, plans.data() + picture * parts, parts, picture, first,
                 std::min(step, channels - first));
  });
}

}  // namespace

Status pyramid_roi_align(const float* rois, const PyramidLevel* levels, size_t level_count,
                         const float* level_borders, const PyramidRoIAlignShape& shape,
                         const ThreadPool& threads, float* pooled) noexcept {
  const Call call{rois, levels, level_count, level_borders, shape, pooled};
  if (!is_valid(call)) {
    return Status::kInvalidArgument;
  }
  const int64_t size = shape.batch * shape.rois * shape.channels * shape.output_size;
  const bool few = size <= kFewFloats / shape.output_size;
  try {
    return run(call, few ? ThreadPool{} : threads);
  } catch (const std::exception&) {
    return Status::kOutOfMemory;
  }
}

}  // namespace cn2
