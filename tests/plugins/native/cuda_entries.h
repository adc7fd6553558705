/* What the library of CUDA kernels for tests has beside the entries of cn2_kernels.h, which it has too. All
 * arrays are the host's. Each returns a cudaError_t as a number: 0 and 1 are cn2::Status's. */
#ifndef CN2_CUDA_ENTRIES_H
#define CN2_CUDA_ENTRIES_H

#include "cn2_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The levels' data and pooled are IEEE half precision. */
CN2_KERNELS_API int32_t cn2_cuda_pyramid_roi_align_fp16(
    const float* rois, const cn2_kernels_level* levels, int64_t level_count,
    const float* level_borders, int64_t batch, int64_t roi_count, int64_t channels,
    int64_t output_size, int64_t sampling_ratio, float canonical_size, uint16_t* pooled);

/* sizes: the numbers of cn2::DeformConvShape in their order; half: whether all tensors are half precision; bias
 * and mask may be null. The workspace is as large as it must be plus `workspace_more`. */
CN2_KERNELS_API int32_t cn2_cuda_deform_conv(const void* x, const void* weight, const void* offset,
                                             const void* bias, const void* mask,
                                             const int64_t* sizes, int32_t half,
                                             int64_t workspace_more, void* y);

/* From now on each call launches its kernels in a CUDA graph, so often; 0: once, not in a graph. */
CN2_KERNELS_API void cn2_cuda_set_repeats(int32_t repeats);

/* How long one launch of the last call took, for each repeat, microseconds; returns how many there are. */
CN2_KERNELS_API int64_t cn2_cuda_get_times(float* microseconds, int64_t capacity);

typedef struct cn2_cuda_picture {
  const uint8_t *data, *chroma;
  int64_t pitch, chroma_pitch;
  int32_t format, width, height, resized_width, resized_height;
} cn2_cuda_picture;

/* Each plane has pitch * height bytes; image_sizes may be null. The workspace is as large as it must be plus
 * `workspace_more`. */
CN2_KERNELS_API int32_t cn2_cuda_preprocess(const cn2_cuda_picture* pictures, int64_t count,
                                            int32_t interpolation, int32_t canvas_height,
                                            int32_t canvas_width, int64_t workspace_more,
                                            uint8_t* canvases, int32_t* image_sizes);

/* Bytes. */
CN2_KERNELS_API int64_t cn2_cuda_preprocess_workspace_size(const cn2_cuda_picture* pictures,
                                                           int64_t count, int32_t interpolation);

/* Emulated only: the order of blocks and threads from now on; 0: ascending. */
CN2_KERNELS_API void cn2_cuda_set_seed(uint64_t seed);

/* Emulated only: whether launches are checked and recorded, but not run. */
CN2_KERNELS_API void cn2_cuda_set_dry_run(int32_t dry_run);

/* Emulated only: the launches since the last call, the first `capacity` of them as grid x, y, z, threads and bytes
 * of the block's memory; returns how many there were. */
CN2_KERNELS_API int64_t cn2_cuda_take_launches(int64_t (*launches)[5], int64_t capacity);

/* Emulated only: half precision to float and back, as the kernels do. */
CN2_KERNELS_API float cn2_cuda_half_to_float(uint16_t half);
CN2_KERNELS_API uint16_t cn2_cuda_float_to_half(float value);

/* Emulated only, of emulator_faults.cpp: run a kernel on 64 numbers; launch one with a grid and block. */
CN2_KERNELS_API int32_t cn2_cuda_run_fault(int32_t fault, int32_t* numbers);
CN2_KERNELS_API int32_t cn2_cuda_launch_empty(uint32_t x, uint32_t y, uint32_t threads,
                                              uint64_t shared);

#ifdef __cplusplus
}
#endif

#endif /* CN2_CUDA_ENTRIES_H */
