#include "onnxruntime/graph.h"

#include <algorithm>
#include <vector>

namespace cn2 {
namespace {

// One input or output.
struct Port {
  std::string name;
  std::string type;            // "uint8"
  std::vector<int64_t> shape;  // -1: any
};

struct Expected {
  const char* name;
  const char* type;
  size_t dimensions;
};

constexpr std::array kInputs = {Expected{"images", "uint8", 4},
                                Expected{"image_sizes", "int32", 2}};
constexpr std::array kOutputs = {Expected{"num_detections", "int32", 1},
                                 Expected{"boxes", "float", 3}, Expected{"scores", "float", 2},
                                 Expected{"classes", "int32", 2}};

class GraphReader {
 public:
  GraphReader(const OrtParts& parts, const std::string& path) : parts_(parts), path_(path) {
    check(parts.api.GetAllocatorWithDefaultOptions(&allocator_));
  }

  std::vector<Port> inputs() const {
    const OrtApi& api = parts_.api;
    return ports(api.SessionGetInputCount, api.SessionGetInputName, api.SessionGetInputTypeInfo);
  }

  std::vector<Port> outputs() const {
    const OrtApi& api = parts_.api;
    return ports(api.SessionGetOutputCount, api.SessionGetOutputName, api.SessionGetOutputTypeInfo);
  }

  std::vector<std::string> optional_inputs() const {
    size_t count = 0;
    check(parts_.api.SessionGetOverridableInitializerCount(parts_.session.get(), &count));
    std::vector<std::string> names;
    for (size_t index = 0; index < count; ++index) {
      names.push_back(name(parts_.api.SessionGetOverridableInitializerName, index));
    }
    return names;
  }

 private:
  void check(OrtStatus* status) const {
    check_ort(parts_.api, status, CN2_MODEL_ERROR, path_, ": its graph cannot be read");
  }

  template <class Count, class Name, class Type>
  std::vector<Port> ports(Count get_count, Name get_name, Type get_type) const {
    size_t count = 0;
    check(get_count(parts_.session.get(), &count));
    std::vector<Port> all;
    for (size_t index = 0; index < count; ++index) {
      OrtHandle<OrtTypeInfo> info(parts_.api.ReleaseTypeInfo);
      check(get_type(parts_.session.get(), index, info.out()));
      all.push_back(describe(name(get_name, index), info.get()));
    }
    return all;
  }

  template <class Name>
  std::string name(Name get_name, size_t index) const {
    char* letters = nullptr;
    check(get_name(parts_.session.get(), index, allocator_, &letters));
    std::string copy;
    try {
      copy = letters;
    } catch (...) {
      allocator_->Free(allocator_, letters);
      throw;
    }
    allocator_->Free(allocator_, letters);
    return copy;
  }

  Port describe(std::string name, const OrtTypeInfo* info) const {
    Port port{std::move(name), "no tensor", {}};
    const OrtTensorTypeAndShapeInfo* tensor = nullptr;
    check(parts_.api.CastTypeInfoToTensorInfo(info, &tensor));
    if (tensor == nullptr) {
      return port;
    }
    ONNXTensorElementDataType type{};
    size_t count = 0;
    check(parts_.api.GetTensorElementType(tensor, &type));
    check(parts_.api.GetDimensionsCount(tensor, &count));
    port.type = type_name(type);
    port.shape.resize(count);
    check(parts_.api.GetDimensions(tensor, port.shape.data(), count));
    return port;
  }

  static std::string type_name(ONNXTensorElementDataType type) {
    switch (type) {
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
        return "uint8";
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
        return "int32";
      case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
        return "float";
      default:
        return text("type ", static_cast<int>(type));
    }
  }

  const OrtParts& parts_;
  const std::string& path_;
  OrtAllocator* allocator_ = nullptr;
};

std::string line(const std::string& name, const std::string& type, size_t dimensions) {
  return text(name, " ", type, " of ", dimensions, " dimensions");
}

template <class Expectations>
void check_ports(const char* what, const Expectations& expected, const std::vector<Port>& ports,
                 const std::string& path) {
  std::vector<std::string> wanted;
  std::vector<std::string> found;
  for (const Expected& port : expected) {
    wanted.push_back(line(port.name, port.type, port.dimensions));
  }
  for (const Port& port : ports) {
    found.push_back(line(port.name, port.type, port.shape.size()));
  }
  if (std::is_permutation(wanted.begin(), wanted.end(), found.begin(), found.end())) {
    return;
  }
  const auto join = [](const std::vector<std::string>& lines) {
    std::string all;
    for (const std::string& one : lines) {
      all += text(all.empty() ? "" : ", ", one);
    }
    return all;
  };
  fail(CN2_MODEL_ERROR, path, ": expected the ", what, " ", join(wanted), ", got ", join(found));
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string all;
  for (const int64_t side : shape) {
    all += text(all.empty() ? "" : ", ", side < 0 ? "any" : text(side));
  }
  return "(" + all + ")";
}

void check_images(const Port& images, const Manifest& manifest, const std::string& path) {
  const auto side = [](int32_t value) { return value == 0 ? int64_t{-1} : int64_t{value}; };
  const Size fixed = manifest.canvas.fixed.value_or(Size{});
  const std::vector<int64_t> wanted = {side(manifest.batch), side(fixed.height), side(fixed.width),
                                       3};
  std::vector<int64_t> found = images.shape;
  std::replace_if(found.begin(), found.end(), [](int64_t value) { return value < 0; }, -1);
  if (found != wanted) {
    fail(CN2_MODEL_ERROR, path, ": expected images of shape ", shape_text(wanted),
         " by its manifest, got ", shape_text(found));
  }
}

}  // namespace

void check_graph(const OrtParts& parts, const Manifest& manifest, const std::string& path) {
  const GraphReader reader(parts, path);
  const std::vector<Port> inputs = reader.inputs();
  check_ports("inputs", kInputs, inputs, path);
  check_ports("outputs", kOutputs, reader.outputs(), path);
  for (const Port& port : inputs) {
    if (port.name == kInputNames[0]) {
      check_images(port, manifest, path);
    }
  }
}

bool takes_threshold(const OrtParts& parts) {
  const std::string path = parts.library.path;
  const auto names = GraphReader(parts, path).optional_inputs();
  return std::find(names.begin(), names.end(), kInputNames[2]) != names.end();
}

}  // namespace cn2
