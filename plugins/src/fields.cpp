#include "fields.h"

#include <algorithm>
#include <limits>

namespace cn2 {
namespace {

const json::Object& as_object(const json::Value& value, const std::string& place) {
  const auto* object = std::get_if<json::Object>(&value.held);
  if (object == nullptr) {
    fail(CN2_MODEL_ERROR, place, "expected an object, got ", describe(value));
  }
  return *object;
}

}  // namespace

Fields::Fields(const json::Value& value, std::string place)
    : object_(&as_object(value, place)), place_(std::move(place)) {}

const json::Value* Fields::find(std::string_view key) {
  taken_.push_back(key);
  const auto found = object_->find(key);
  return found == object_->end() ? nullptr : &found->second;
}

const json::Value& Fields::get(std::string_view key) {
  const json::Value* value = find(key);
  if (value == nullptr) {
    fail(CN2_MODEL_ERROR, place_, "expected a key ", key, ", found none");
  }
  return *value;
}

int64_t Fields::integer(std::string_view key, int64_t lowest, int64_t highest) {
  const json::Value& value = get(key);
  const auto* number = std::get_if<int64_t>(&value.held);
  if (number == nullptr || *number < lowest || *number > highest) {
    refuse(key, text("a whole number from ", lowest, " to ", highest), value);
  }
  return *number;
}

int32_t Fields::count_or_null(std::string_view key, bool optional) {
  const json::Value* value = optional ? find(key) : &get(key);
  if (value == nullptr || std::holds_alternative<std::nullptr_t>(value->held)) {
    return 0;
  }
  return static_cast<int32_t>(integer(key, 1, std::numeric_limits<int32_t>::max()));
}

double Fields::number(std::string_view key, double lowest, double highest) {
  const json::Value& value = get(key);
  double number = std::numeric_limits<double>::quiet_NaN();
  if (const auto* real = std::get_if<double>(&value.held)) {
    number = *real;
  } else if (const auto* whole = std::get_if<int64_t>(&value.held)) {
    number = static_cast<double>(*whole);
  }
  if (!(number >= lowest && number <= highest)) {
    refuse(key, text("a number from ", lowest, " to ", highest), value);
  }
  return number;
}

const std::string& Fields::string(std::string_view key) {
  const json::Value& value = get(key);
  const auto* letters = std::get_if<std::string>(&value.held);
  if (letters == nullptr) {
    refuse(key, "a text", value);
  }
  return *letters;
}

std::string_view Fields::choice(std::string_view key,
                                std::initializer_list<std::string_view> words) {
  const json::Value* value = find(key);
  if (value == nullptr) {
    return *words.begin();
  }
  const auto* letters = std::get_if<std::string>(&value->held);
  if (letters == nullptr || std::find(words.begin(), words.end(), *letters) == words.end()) {
    std::string list;
    for (const std::string_view word : words) {
      list += text(list.empty() ? "" : " or ", word);
    }
    refuse(key, list, *value);
  }
  return *letters;
}

const json::Array& Fields::array(std::string_view key) {
  const json::Value& value = get(key);
  const auto* values = std::get_if<json::Array>(&value.held);
  if (values == nullptr) {
    refuse(key, "a list", value);
  }
  return *values;
}

void Fields::finish() const {
  for (const auto& [key, value] : *object_) {
    if (std::find(taken_.begin(), taken_.end(), key) == taken_.end()) {
      fail(CN2_MODEL_ERROR, place_, "unknown key ", describe(json::Value{key}));
    }
  }
}

void Fields::refuse(std::string_view key, std::string_view expected, const json::Value& got) const {
  fail(CN2_MODEL_ERROR, place_, key, ": expected ", expected, ", got ", describe(got));
}

}  // namespace cn2
