// A plugin's attributes: read from the fields that a parser or an engine gives, and written as such.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace cn2 {

// What is wrong with a node or its inputs, in one line: expected, got.
class PluginError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The fields of one plugin. All throw PluginError where a field is of another type.
class Fields {
 public:
  explicit Fields(const nvinfer1::PluginFieldCollection& fields) : fields_(fields) {}

  // Throw where it is missing.
  int64_t get_int(const char* name) const;
  float get_float(const char* name) const;

  // Empty where it is missing.
  std::vector<int64_t> get_ints(const char* name) const;
  std::vector<float> get_floats(const char* name) const;

  // `count` of them, each `missing` where the field is missing; throws where there are others.
  std::vector<int64_t> get_ints(const char* name, size_t count, int64_t missing) const;

 private:
  const nvinfer1::PluginField* find(const char* name) const;

  const nvinfer1::PluginFieldCollection& fields_;
};

// Attributes as fields, which point into this object.
class StoredFields {
 public:
  StoredFields() = default;
  StoredFields(const StoredFields&) = delete;
  StoredFields& operator=(const StoredFields&) = delete;

  // Throw PluginError where an integer does not fit into 32 bits, which all runtimes know.
  void add(const char* name, const std::vector<int64_t>& values);
  void add(const char* name, int64_t value) { add(name, std::vector{value}); }
  void add(const char* name, std::vector<float> values);
  void add(const char* name, float value) { add(name, std::vector{value}); }

  // Valid until the next call of a function that is not const.
  nvinfer1::PluginFieldCollection make_collection();

 private:
  using Values = std::variant<std::vector<int32_t>, std::vector<float>>;
  std::vector<std::pair<const char*, Values>> stored_;
  std::vector<nvinfer1::PluginField> fields_;
};

}  // namespace cn2
