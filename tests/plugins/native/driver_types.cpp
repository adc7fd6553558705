// What cuda_driver.h says of NVIDIA's driver, against its own header.
#include <cuda.h>

#include <cstddef>

#include "cuda_driver.h"

using cn2::cuda::Copy2D;

static_assert(sizeof(Copy2D) == sizeof(CUDA_MEMCPY2D));
static_assert(offsetof(Copy2D, source_device) == offsetof(CUDA_MEMCPY2D, srcDevice));
static_assert(offsetof(Copy2D, target_device) == offsetof(CUDA_MEMCPY2D, dstDevice));
static_assert(offsetof(Copy2D, height) == offsetof(CUDA_MEMCPY2D, Height));
static_assert(cn2::cuda::kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
static_assert(cn2::cuda::kHostMemory == CU_MEMORYTYPE_HOST);
static_assert(cn2::cuda::kDeviceMemory == CU_MEMORYTYPE_DEVICE);
static_assert(cn2::cuda::kDeviceOfPointer == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
static_assert(cn2::cuda::kNonBlockingStream == CU_STREAM_NON_BLOCKING);
static_assert(cn2::cuda::kCaptureOfThread == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
static_assert(sizeof(cn2::cuda::Pointer) == sizeof(CUdeviceptr));
