// A whole file as read-only memory.
#pragma once

#include <string>
#include <string_view>

namespace cn2 {

class MappedFile {
 public:
  // Throws Error (CN2_MODEL_ERROR): cannot be read. An empty file is fine.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return {static_cast<const char*>(data_), size_}; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace cn2
