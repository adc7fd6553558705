// The keys of a JSON object, each taken once and checked; what is left over is refused.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"
#include "json.h"

namespace cn2 {

class Fields {
 public:
  // `place` stands before each message: "nano.onnx: its cn2 manifest is not valid: canvas: ".
  // Throws Error (CN2_MODEL_ERROR), as all of this class: the value is no object.
  Fields(const json::Value& value, std::string place);

  // The value of a key, or null. Counts as taken.
  const json::Value* find(std::string_view key);

  // The value of a key that must be there.
  const json::Value& get(std::string_view key);

  // A whole number from `lowest` to `highest`.
  int64_t integer(std::string_view key, int64_t lowest, int64_t highest);

  // The same as an int32_t; 0 for null, and for a key that is not there where it is `optional`.
  int32_t count_or_null(std::string_view key, bool optional);

  double number(std::string_view key, double lowest, double highest);

  const std::string& string(std::string_view key);

  // One of these words; the first of them if the key is not there.
  std::string_view choice(std::string_view key, std::initializer_list<std::string_view> words);

  const json::Array& array(std::string_view key);

  // Refuse keys that were not taken.
  void finish() const;

  // Throw: expected what, got the value.
  [[noreturn]] void refuse(std::string_view key, std::string_view expected,
                           const json::Value& got) const;

  const std::string& place() const { return place_; }

 private:
  const json::Object* object_;
  std::string place_;
  std::vector<std::string_view> taken_;
};

}  // namespace cn2
