// The log of all models, to the callback of cn2_set_log.
#pragma once

#include <cn2.h>

#include <string>

namespace cn2 {

void set_log(cn2_log_callback callback, void* user, int32_t lowest_level);

// Whether a line of this level goes anywhere; ask before making a costly one.
bool logs(int32_t level);

void log(int32_t level, const char* message);

inline void log(int32_t level, const std::string& message) {
  log(level, message.c_str());
}

}  // namespace cn2
