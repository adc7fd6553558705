#include "onnx_file.h"

#include <cstdint>
#include <optional>
#include <string_view>

#include "error.h"
#include "mapped_file.h"
#include "utf8.h"

// Only the protobuf records on the way are looked at; the weights themselves are stepped over.
// Field numbers are those of onnx.proto (ONNX 1.0 and later).
namespace cn2 {
namespace {

constexpr std::string_view kManifestKey = "cn2.manifest";
constexpr int kDeepest = 64;  // nested records; a subgraph in a subgraph adds three

struct Torn {
  std::string why;  // the bytes are no protobuf message
};

// A field of a message: its number, and either an integer or the bytes of a record.
struct Field {
  uint64_t number = 0;
  bool is_record = false;
  uint64_t integer = 0;
  std::string_view record{};
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  bool next(Field& field) {
    if (rest_.empty()) {
      return false;
    }
    const uint64_t tag = varint();
    field = {tag >> 3};
    const uint64_t wire = tag & 7;
    if (wire == 0) {
      field.integer = varint();
      return true;
    }
    field.is_record = true;
    field.record = take(wire == 2 ? varint() : fixed_size(wire));
    return true;
  }

 private:
  static uint64_t fixed_size(uint64_t wire) {
    if (wire != 1 && wire != 5) {
      throw Torn{text("wire type ", wire)};
    }
    return wire == 1 ? 8 : 4;
  }

  std::string_view take(uint64_t size) {
    if (size > rest_.size()) {
      throw Torn{text("a record of ", size, " bytes where ", rest_.size(), " are left")};
    }
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7FU) << shift;
      if (byte < 0x80) {
        return value;
      }
    }
    throw Torn{"a number that does not end"};
  }

  std::string_view rest_;
};

enum class Kind {
  kNone,
  kModel,
  kTraining,
  kFunction,
  kGraph,
  kNode,
  kAttribute,
  kSparse,
  kTensor
};

// What a record contains that may lead to a tensor.
Kind child(Kind kind, uint64_t number) {
  switch (kind) {
    case Kind::kModel:
      return number == 7    ? Kind::kGraph
             : number == 25 ? Kind::kFunction
             : number == 20 ? Kind::kTraining
                            : Kind::kNone;
    case Kind::kTraining:
      return number == 1 || number == 2 ? Kind::kGraph : Kind::kNone;
    case Kind::kFunction:
      return number == 7 ? Kind::kNode : number == 11 ? Kind::kAttribute : Kind::kNone;
    case Kind::kGraph:
      return number == 1    ? Kind::kNode
             : number == 5  ? Kind::kTensor
             : number == 15 ? Kind::kSparse
                            : Kind::kNone;
    case Kind::kNode:
      return number == 5 ? Kind::kAttribute : Kind::kNone;
    case Kind::kAttribute:
      return number == 5 || number == 10    ? Kind::kTensor
             : number == 6 || number == 11  ? Kind::kGraph
             : number == 22 || number == 23 ? Kind::kSparse
                                            : Kind::kNone;
    case Kind::kSparse:
      return number == 1 || number == 2 ? Kind::kTensor : Kind::kNone;
    default:
      return Kind::kNone;
  }
}

// Whether a record holds, at any depth, a tensor whose data lies in another file.
bool has_external(std::string_view record, Kind kind, int depth) {
  if (depth > kDeepest) {
    throw Torn{text("more than ", kDeepest, " nested records")};
  }
  Field field;
  for (Reader reader(record); reader.next(field);) {
    if (kind == Kind::kTensor) {
      constexpr uint64_t external_data = 13;
      constexpr uint64_t data_location = 14;  // 1: external
      if (field.number == external_data ||
          (field.number == data_location && !field.is_record && field.integer == 1)) {
        return true;
      }
      continue;
    }
    const Kind inner = child(kind, field.number);
    if (inner != Kind::kNone && field.is_record && has_external(field.record, inner, depth + 1)) {
      return true;
    }
  }
  return false;
}

struct Entry {
  std::string_view key, value;
};

Entry read_entry(std::string_view record) {
  Entry entry;
  Field field;
  for (Reader reader(record); reader.next(field);) {
    if (!is_utf8(field.record)) {
      throw Torn{"a text that is not UTF-8"};
    }
    if (field.number == 1) {
      entry.key = field.record;
    } else if (field.number == 2) {
      entry.value = field.record;
    }
  }
  return entry;
}

std::optional<std::string> find_manifest(std::string_view file) {
  std::optional<std::string> manifest;
  bool has_graph = false;
  Field field;
  for (Reader reader(file); reader.next(field);) {
    constexpr uint64_t graph = 7;
    constexpr uint64_t metadata = 14;
    has_graph |= field.number == graph;
    if (field.number == metadata && field.is_record) {
      const Entry entry = read_entry(field.record);
      if (entry.key == kManifestKey) {
        manifest = entry.value;
      }
    }
  }
  if (!has_graph) {
    throw Torn{"no graph in it"};
  }
  return manifest;
}

}  // namespace

std::string read_onnx_manifest(const std::string& path) {
  const MappedFile file(path);
  try {
    std::optional<std::string> manifest = find_manifest(file.bytes());
    if (has_external(file.bytes(), Kind::kModel, 0)) {
      fail(CN2_MODEL_ERROR, path,
           ": expected all weights inside the file, got weights in other files; export it with "
           "cn2 export");
    }
    if (!manifest) {
      fail(CN2_MODEL_ERROR, path,
           ": no cn2 manifest in its metadata; was it exported with cn2 export?");
    }
    return *std::move(manifest);
  } catch (const Torn& torn) {
    fail(CN2_MODEL_ERROR, path, ": expected an ONNX file, got something else or a torn one (",
         torn.why, ")");
  }
}

}  // namespace cn2
