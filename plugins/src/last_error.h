// What the last failed call of a thread said.
#pragma once

namespace cn2 {

void set_last_error(const char* message) noexcept;
const char* last_error() noexcept;

}  // namespace cn2
