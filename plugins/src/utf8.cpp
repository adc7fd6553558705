#include "utf8.h"

namespace cn2 {
namespace {

struct Range {
  unsigned char lowest, highest;
};

// Where the second byte lies after this first one (Unicode 16, table 3-7); empty: no such first
// byte.
Range second_byte(unsigned char first) {
  if (first == 0xE0) {
    return {0xA0, 0xBF};
  }
  if (first == 0xED) {
    return {0x80, 0x9F};
  }
  if (first == 0xF0) {
    return {0x90, 0xBF};
  }
  if (first == 0xF4) {
    return {0x80, 0x8F};
  }
  if (first >= 0xC2 && first <= 0xF3) {
    return {0x80, 0xBF};
  }
  return {1, 0};
}

bool within(char byte, Range range) {
  const auto value = static_cast<unsigned char>(byte);
  return value >= range.lowest && value <= range.highest;
}

}  // namespace

size_t utf8_length(std::string_view text) {
  if (text.empty()) {
    return 0;
  }
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x80) {
    return 1;
  }
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (text.size() < length || !within(text[1], second_byte(first))) {
    return 0;
  }
  for (size_t i = 2; i < length; ++i) {
    if (!within(text[i], {0x80, 0xBF})) {
      return 0;
    }
  }
  return length;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) {
      return false;
    }
    text.remove_prefix(length);
  }
  return true;
}

void copy_line(const char* text, char* line, size_t room) noexcept {
  std::string_view rest(text);
  size_t size = 0;
  while (!rest.empty()) {
    const size_t length = utf8_length(rest);
    const size_t taken = length == 0 ? 1 : length;
    if (size + taken >= room) {
      break;
    }
    for (size_t i = 0; i < taken; ++i) {
      const auto byte = static_cast<unsigned char>(rest[i]);
      line[size++] = length == 0 ? '?' : byte < 0x20 || byte == 0x7F ? ' ' : rest[i];
    }
    rest.remove_prefix(taken);
  }
  line[size] = '\0';
}

void append_utf8(std::string& text, uint32_t code_point) {
  const auto tail = [&](int shift) {
    text += static_cast<char>(0x80U | ((code_point >> shift) & 0x3FU));
  };
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    text += static_cast<char>(0xC0U | (code_point >> 6));
    tail(0);
  } else if (code_point < 0x10000) {
    text += static_cast<char>(0xE0U | (code_point >> 12));
    tail(6), tail(0);
  } else {
    text += static_cast<char>(0xF0U | (code_point >> 18));
    tail(12), tail(6), tail(0);
  }
}

}  // namespace cn2
