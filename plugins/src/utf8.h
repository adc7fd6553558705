// UTF-8: is a text valid, and one code point as bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cn2 {

// Bytes of the code point that `text` begins with; 0 if it begins with none (overlong, a surrogate,
// cut off).
size_t utf8_length(std::string_view text);

bool is_utf8(std::string_view text);

// Copy a text as one line of UTF-8: control characters become spaces, bytes that are none '?'; as
// much as `room` bytes hold with the 0 at the end, in whole code points. room >= 1.
void copy_line(const char* text, char* line, size_t room) noexcept;

// Append a code point below 0x110000.
void append_utf8(std::string& text, uint32_t code_point);

}  // namespace cn2
