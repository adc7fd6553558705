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

// Append a code point below 0x110000.
void append_utf8(std::string& text, uint32_t code_point);

}  // namespace cn2
