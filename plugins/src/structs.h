// Structs that a caller passes, which begin with struct_size and may be older or newer than this
// library's.
#pragma once

#include <cn2.h>

#include <cstddef>
#include <cstring>
#include <span>

#include "error.h"

namespace cn2 {

constexpr size_t kLargestStruct = 1024;  // bytes; no header has a larger one

// Where each field of a struct ends: the sizes that a caller's header may have given it.
template <class T>
std::span<const size_t> field_ends();

// Throws Error (CN2_INVALID_ARGUMENT), naming `what`, unless a struct of this size can be read: it
// ends with a field, or is longer and all zero past the fields that are known here. Returns the
// size.
size_t check_struct(const void* given, std::span<const size_t> ends, size_t known, Name what);

// A caller's struct; the fields that it lacks are those of `defaults`.
template <class T>
T read_struct(const T* given, const T& defaults, Name what) {
  const size_t size = check_struct(given, field_ends<T>(), sizeof(T), what);
  T result = defaults;
  std::memcpy(&result, given, std::min(size, sizeof(T)));
  return result;
}

// Fill the fields that a caller's struct has; its struct_size stays.
template <class T>
void write_struct(const T& result, T* given, Name what) {
  const size_t size = check_struct(given, field_ends<T>(), sizeof(T), what);
  constexpr size_t header = sizeof(uint32_t);
  std::memcpy(reinterpret_cast<char*>(given) + header,
              reinterpret_cast<const char*>(&result) + header, std::min(size, sizeof(T)) - header);
}

// The pictures of a call: an array whose elements are as long as the first one says.
class ImageList {
 public:
  // Throws Error (CN2_INVALID_ARGUMENT): null, though there are some.
  ImageList(const cn2_image* images, size_t count);

  size_t size() const { return count_; }

  // Throws Error (CN2_INVALID_ARGUMENT), naming the picture.
  cn2_image at(size_t index) const;

 private:
  const char* images_;
  size_t count_;
  uint32_t stride_ = 0;
};

}  // namespace cn2
