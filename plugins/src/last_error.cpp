#include "last_error.h"

#include <cstring>

namespace cn2 {
namespace {

// In place, so that it can be told that memory is short.
thread_local char message_of_thread[1024] = "";

bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

}  // namespace

void set_last_error(const char* message) noexcept {
  size_t size = std::strlen(message);
  if (size >= sizeof(message_of_thread)) {
    size = sizeof(message_of_thread) - 1;
    while (size > 0 && is_continuation(message[size])) {
      --size;
    }
  }
  std::memcpy(message_of_thread, message, size);
  message_of_thread[size] = '\0';
  for (char* letter = message_of_thread; *letter != '\0'; ++letter) {
    if (*letter == '\n' || *letter == '\r') {
      *letter = ' ';
    }
  }
}

const char* last_error() noexcept {
  return message_of_thread;
}

}  // namespace cn2
