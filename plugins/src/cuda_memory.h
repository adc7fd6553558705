// Pictures in the memory of a CUDA device, copied to the host.
#pragma once

#include <cstdint>
#include <vector>

#include "pixels.h"

namespace cn2 {

class CudaCopier {
 public:
  // The same picture in host memory of this object, until its next call; copied after what is on
  // `stream`, which may be null. Throws Error:
  // CN2_UNAVAILABLE (no libcuda.so.1, no such device), CN2_INVALID_ARGUMENT (the driver cannot copy
  // from there), CN2_OUT_OF_MEMORY.
  Pixels to_host(const Pixels& picture, int device, void* stream);

 private:
  std::vector<uint8_t> host_;
};

}  // namespace cn2
