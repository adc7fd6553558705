#include "fields.h"

#include <cstring>
#include <limits>

namespace cn2 {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

template <typename From, typename To>
std::vector<To> convert(const PluginField& field) {
  const auto* values = static_cast<const From*>(field.data);
  std::vector<To> converted;
  for (int32_t i = 0; i < field.length; ++i) {
    converted.push_back(static_cast<To>(values[i]));
  }
  return converted;
}

[[noreturn]] void throw_type(const PluginField& field, const char* expected) {
  throw PluginError("attribute " + std::string(field.name) + ": expected " + expected +
                    ", got field type " + std::to_string(static_cast<int32_t>(field.type)));
}

std::vector<int64_t> read_ints(const PluginField& field) {
  switch (field.type) {
    case PluginFieldType::kINT32:
      return convert<int32_t, int64_t>(field);
    case PluginFieldType::kINT64:
      return convert<int64_t, int64_t>(field);
    default:
      throw_type(field, "integers");
  }
}

std::vector<float> read_floats(const PluginField& field) {
  switch (field.type) {
    case PluginFieldType::kFLOAT32:
      return convert<float, float>(field);
    case PluginFieldType::kFLOAT64:
      return convert<double, float>(field);
    default:
      throw_type(field, "floats");
  }
}

template <typename T>
T only(const char* name, const std::vector<T>& values) {
  if (values.size() != 1) {
    throw PluginError("attribute " + std::string(name) + ": expected one number, got " +
                      std::to_string(values.size()));
  }
  return values[0];
}

}  // namespace

const PluginField* Fields::find(const char* name) const {
  for (int32_t i = 0; i < fields_.nbFields; ++i) {
    if (std::strcmp(fields_.fields[i].name, name) == 0) {
      return &fields_.fields[i];
    }
  }
  return nullptr;
}

std::vector<int64_t> Fields::get_ints(const char* name) const {
  const PluginField* field = find(name);
  return field == nullptr ? std::vector<int64_t>{} : read_ints(*field);
}

std::vector<float> Fields::get_floats(const char* name) const {
  const PluginField* field = find(name);
  return field == nullptr ? std::vector<float>{} : read_floats(*field);
}

int64_t Fields::get_int(const char* name) const {
  return only(name, get_ints(name));
}

float Fields::get_float(const char* name) const {
  return only(name, get_floats(name));
}

std::vector<int64_t> Fields::get_ints(const char* name, size_t count, int64_t missing) const {
  std::vector<int64_t> values = get_ints(name);
  if (values.empty()) {
    return std::vector<int64_t>(count, missing);
  }
  if (values.size() != count) {
    throw PluginError("attribute " + std::string(name) + ": expected " + std::to_string(count) +
                      " numbers, got " + std::to_string(values.size()));
  }
  return values;
}

void StoredFields::add(const char* name, const std::vector<int64_t>& values) {
  std::vector<int32_t> narrow;
  for (const int64_t value : values) {
    narrow.push_back(static_cast<int32_t>(value));
    if (narrow.back() != value) {
      throw PluginError("attribute " + std::string(name) + ": expected less than " +
                        std::to_string(std::numeric_limits<int32_t>::max()) + ", got " +
                        std::to_string(value));
    }
  }
  stored_.emplace_back(name, std::move(narrow));
}

void StoredFields::add(const char* name, std::vector<float> values) {
  stored_.emplace_back(name, std::move(values));
}

nvinfer1::PluginFieldCollection StoredFields::make_collection() {
  fields_.clear();
  for (const auto& [name, values] : stored_) {
    const bool floats = std::holds_alternative<std::vector<float>>(values);
    const PluginFieldType type = floats ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32;
    std::visit(
        [&, &name = name](const auto& numbers) {
          fields_.emplace_back(name, numbers.data(), type, static_cast<int32_t>(numbers.size()));
        },
        values);
  }
  return {static_cast<int32_t>(fields_.size()), fields_.data()};
}

}  // namespace cn2
