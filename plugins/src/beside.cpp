#include "beside.h"

#include <dlfcn.h>
#include <link.h>

#include <system_error>

namespace cn2 {
namespace {

struct Search {
  std::string_view name;
  std::string found;
};

}  // namespace

std::filesystem::path own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0) {
    return {};
  }
  std::error_code error;
  return std::filesystem::weakly_canonical(info.dli_fname, error).parent_path();
}

std::filesystem::path site_packages() {
  return own_folder().parent_path().parent_path().parent_path();
}

bool is_library(std::string_view path, std::string_view name) {
  const std::string_view file = path.substr(path.find_last_of('/') + 1);
  return file == name || file.starts_with(std::string(name) + ".");
}

std::string find_loaded(std::string_view name) {
  Search search{name, ""};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& wanted = *static_cast<Search*>(data);
        if (!is_library(info->dlpi_name, wanted.name)) {
          return 0;
        }
        wanted.found = info->dlpi_name;
        return 1;
      },
      &search);
  return search.found;
}

std::string find_in_folder(const std::filesystem::path& folder, std::string_view name) {
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    if (is_library(entry->path().native(), name)) {
      return entry->path();
    }
  }
  return folder / (std::string(name) + ".*");
}

}  // namespace cn2
