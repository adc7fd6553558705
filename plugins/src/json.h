// A strict reader of JSON texts (RFC 8259): UTF-8, no repeated keys, nothing after the value.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace cn2::json {

// What is wrong with a text, and where: "a number, at byte 12".
struct ParseError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Value;
using Array = std::vector<Value>;
using Object = std::map<std::string, Value, std::less<>>;

// A number is an int64_t where it is written without point and exponent and fits one, else a
// double.
struct Value {
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> held = nullptr;
  std::string_view written{};  // its place in the text that was parsed
};

// Throws ParseError: no JSON, deeper than 64 values, a key twice in an object, a number outside a
// double, a text with a zero character or not UTF-8.
Value parse(std::string_view text);

// A value in words, for messages: "a list of 3", "true", "\"abc\"".
std::string describe(const Value& value);

}  // namespace cn2::json
