#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "error.h"

namespace cn2 {
namespace {

[[noreturn]] void cannot_read(const std::string& path, int error) {
  if (error == ENOENT) {
    fail(CN2_MODEL_ERROR, path, ": no such file");
  }
  fail(error == ENOMEM ? CN2_OUT_OF_MEMORY : CN2_MODEL_ERROR, path, ": cannot be read (",
       std::generic_category().message(error), ")");
}

struct Descriptor {
  explicit Descriptor(const std::string& path)
      : number(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~Descriptor() {
    if (number >= 0) {
      close(number);
    }
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number;
};

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  const Descriptor file(path);
  struct stat status{};
  if (file.number < 0 || fstat(file.number, &status) != 0) {
    cannot_read(path, errno);
  }
  if (!S_ISREG(status.st_mode)) {
    fail(CN2_MODEL_ERROR, path, ": expected a file, got something else");
  }
  size_ = static_cast<size_t>(status.st_size);
  if (size_ == 0) {
    return;
  }
  void* data = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (data == MAP_FAILED) {
    cannot_read(path, errno);
  }
  data_ = data;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    munmap(data_, size_);
  }
}

}  // namespace cn2
