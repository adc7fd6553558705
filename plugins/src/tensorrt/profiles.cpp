#include "tensorrt/profiles.h"

#include <algorithm>

#include "contract.h"
#include "error.h"

namespace cn2 {
namespace {

constexpr size_t kSides = 4;  // of images: batch, height, width, 3

std::string describe(const Profile& profile) {
  const auto range = [](const Range& limits) {
    return limits.least == limits.most ? text(limits.least)
                                       : text(limits.least, " to ", limits.most);
  };
  return text("batch ", range(profile.batch), ", height ", range(profile.height), ", width ",
              range(profile.width));
}

[[noreturn]] void refuse(const std::vector<Profile>& profiles, const std::string& got) {
  std::string all;
  for (const Profile& profile : profiles) {
    all += text(all.empty() ? "" : "; or ", describe(profile));
  }
  invalid("canvases: expected what this engine was built for (", all, "), got ", got,
          "; build it with another profile");
}

}  // namespace

std::vector<Profile> read_profiles(const cn2_tensorrt_module& module,
                                   const cn2_tensorrt_engine* engine, const std::string& path) {
  std::vector<Profile> profiles;
  for (int32_t number = 0; number < module.profile_count(engine); ++number) {
    cn2_tensorrt_shape least{};
    cn2_tensorrt_shape most{};
    module.profile_shape(engine, number, kInputNames[0], CN2_TENSORRT_MIN, &least);
    module.profile_shape(engine, number, kInputNames[0], CN2_TENSORRT_MAX, &most);
    if (least.count != kSides || most.count != kSides) {
      fail(CN2_MODEL_ERROR, path, ": profile ", number, ": expected limits of images, found none");
    }
    const auto range = [&](int side) { return Range{least.sides[side], most.sides[side]}; };
    profiles.push_back({range(0), range(1), range(2)});
  }
  if (profiles.empty()) {
    fail(CN2_MODEL_ERROR, path, ": expected an optimization profile, found none; build it again");
  }
  return profiles;
}

int32_t choose_profile(const std::vector<Profile>& profiles, int32_t batch, Size canvas) {
  for (size_t number = 0; number < profiles.size(); ++number) {
    if (profiles[number].batch.has(batch) && profiles[number].takes(canvas)) {
      return static_cast<int32_t>(number);
    }
  }
  refuse(profiles, text("batch ", batch, " of ", canvas.height, " x ", canvas.width));
}

int32_t choose_batch(const std::vector<Profile>& profiles, Size canvas, int64_t waiting) {
  int64_t best = 0;
  for (const Profile& profile : profiles) {
    if (!profile.takes(canvas)) {
      continue;
    }
    const int64_t batch = std::clamp(waiting, profile.batch.least, profile.batch.most);
    const int64_t served = std::min(batch, waiting) - std::min(best, waiting);
    if (best == 0 || served > 0 || (served == 0 && batch < best)) {
      best = batch;
    }
  }
  if (best == 0) {
    refuse(profiles, text(canvas.height, " x ", canvas.width));
  }
  return static_cast<int32_t>(best);
}

}  // namespace cn2
