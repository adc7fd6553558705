#include "onnxruntime/graph.h"

#include <algorithm>
#include <vector>

#include "contract.h"

namespace cn2 {
namespace {

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

}  // namespace

void check_graph(const OrtParts& parts, const Manifest& manifest, const std::string& path) {
  const GraphReader reader(parts, path);
  check_contract(reader.inputs(), reader.outputs(), manifest, path);
}

bool takes_threshold(const OrtParts& parts) {
  const std::string path = parts.library.path;
  const auto names = GraphReader(parts, path).optional_inputs();
  return std::find(names.begin(), names.end(), kInputNames[2]) != names.end();
}

}  // namespace cn2
