#include "contract.h"

#include <algorithm>

#include "error.h"

namespace cn2 {
namespace {

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

std::string line(const std::string& name, const std::string& type, size_t dimensions) {
  return text(name, " ", type, " of ", dimensions, " dimensions");
}

std::string join(const std::vector<std::string>& lines) {
  std::string all;
  for (const std::string& one : lines) {
    all += text(all.empty() ? "" : ", ", one);
  }
  return all;
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
  if (!std::is_permutation(wanted.begin(), wanted.end(), found.begin(), found.end())) {
    fail(CN2_MODEL_ERROR, path, ": expected the ", what, " ", join(wanted), ", got ", join(found));
  }
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

void check_contract(const std::vector<Port>& inputs, const std::vector<Port>& outputs,
                    const Manifest& manifest, const std::string& path) {
  check_ports("inputs", kInputs, inputs, path);
  check_ports("outputs", kOutputs, outputs, path);
  for (const Port& port : inputs) {
    if (port.name == kInputNames[0]) {
      check_images(port, manifest, path);
    }
  }
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string all;
  for (const int64_t side : shape) {
    all += text(all.empty() ? "" : ", ", side < 0 ? "any" : text(side));
  }
  return "(" + all + ")";
}

}  // namespace cn2
