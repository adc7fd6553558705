// What every part of libcn2 throws; c_api.cpp turns it into a status and a line of text.
#pragma once

#include <cn2.h>

#include <cstddef>
#include <locale>
#include <ostream>
#include <sstream>
#include <string>
#include <utility>

namespace cn2 {

// What a message is about: "options", or "images[2]"; a text only once it is needed.
struct Name {
  const char* word;
  std::ptrdiff_t index = -1;  // below 0: it is not one of several
};

inline std::ostream& operator<<(std::ostream& stream, const Name& name) {
  stream << name.word;
  return name.index < 0 ? stream : stream << '[' << name.index << ']';
}

// A failed call: its status, and in one line what was expected, what came and what to do.
struct Error {
  cn2_status status;
  std::string message;
};

// The parts one after another; numbers as "%g" would, whatever the program's locale.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  stream.imbue(std::locale::classic());
  (stream << ... << parts);
  return std::move(stream).str();
}

template <class... Parts>
[[noreturn]] void fail(cn2_status status, const Parts&... parts) {
  throw Error{status, text(parts...)};
}

template <class... Parts>
[[noreturn]] void invalid(const Parts&... parts) {
  fail(CN2_INVALID_ARGUMENT, parts...);
}

// What another library said, on one line of bounded length.
std::string shorten(const char* said);

}  // namespace cn2
