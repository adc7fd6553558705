// What lies beside this library, and where Python's packages are; libraries that are loaded already.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace cn2 {

// The folder of libcn2.so, or of the program that it is linked into; empty: not known.
std::filesystem::path own_folder();

// site-packages, where this library is site-packages/cn2/plugins/lib/libcn2.so.
std::filesystem::path site_packages();

// Whether a file is the library `name` ("libonnxruntime.so"), with or without a version behind.
bool is_library(std::string_view path, std::string_view name);

// The path of such a library that this process has loaded; empty: none.
std::string find_loaded(std::string_view name);

// Such a library in a folder; the folder with `name` and ".*" where there is none.
std::string find_in_folder(const std::filesystem::path& folder, std::string_view name);

}  // namespace cn2
