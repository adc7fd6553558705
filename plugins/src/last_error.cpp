#include "last_error.h"

#include "utf8.h"

namespace cn2 {
namespace {

// In place, so that it can be told that memory is short.
thread_local char message_of_thread[1024] = "";

}  // namespace

void set_last_error(const char* message) noexcept {
  copy_line(message, message_of_thread, sizeof(message_of_thread));
}

const char* last_error() noexcept {
  return message_of_thread;
}

}  // namespace cn2
