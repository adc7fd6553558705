#include "log.h"

#include <atomic>
#include <mutex>

#include "utf8.h"

namespace cn2 {
namespace {

struct Sink {
  cn2_log_callback callback = nullptr;
  void* user = nullptr;
};

constexpr int32_t kNowhere = CN2_LOG_ERROR + 1;

std::mutex mutex;  // guards sink; neither has a destructor to run
Sink sink;
std::atomic<int32_t> lowest{kNowhere};

}  // namespace

void set_log(cn2_log_callback callback, void* user, int32_t lowest_level) {
  const std::lock_guard<std::mutex> guard(mutex);
  sink = {callback, user};
  lowest = callback == nullptr ? kNowhere : lowest_level;
}

bool logs(int32_t level) {
  return level >= lowest;
}

void log(int32_t level, const char* message) {
  if (!logs(level)) {
    return;
  }
  Sink target;
  {
    const std::lock_guard<std::mutex> guard(mutex);
    target = sink;
  }
  if (target.callback != nullptr) {
    char line[1024];
    copy_line(message, line, sizeof(line));
    target.callback(target.user, level, line);
  }
}

}  // namespace cn2
