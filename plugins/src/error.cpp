#include "error.h"

#include <string_view>

namespace cn2 {
namespace {

constexpr size_t kLongest = 300;  // bytes of what another library says; it may say pages

bool is_space(char letter) {
  return std::string_view(" \t\r\n\v\f").find(letter) != std::string_view::npos;
}

bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

}  // namespace

std::string shorten(const char* said) {
  std::string line;
  for (const char* letter = said; *letter != '\0' && line.size() <= kLongest + 4; ++letter) {
    if (!is_space(*letter)) {
      line += *letter;
    } else if (!line.empty() && line.back() != ' ') {
      line += ' ';
    }
  }
  while (!line.empty() && line.back() == ' ') {
    line.pop_back();
  }
  if (line.size() <= kLongest) {
    return line;
  }
  line.resize(kLongest);
  while (!line.empty() && is_continuation(line.back())) {
    line.pop_back();
  }
  if (!line.empty() && static_cast<unsigned char>(line.back()) >= 0xC0U) {
    line.pop_back();
  }
  return line + "…";
}

}  // namespace cn2
