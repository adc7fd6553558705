/* The seam between libcn2 and libcn2_cuda, which holds the CUDA kernels for pictures: plain C, and
 * no type of CUDA. Inside the package only; both sides are always of one version. */
#ifndef CN2_CUDA_MODULE_H
#define CN2_CUDA_MODULE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CN2_CUDA_MODULE_VERSION 1

/* A picture in device memory, as CudaPicture of kernels/preprocess_cuda.h. */
typedef struct cn2_cuda_picture {
  const uint8_t* data;
  const uint8_t* chroma;
  int64_t pitch;
  int64_t chroma_pitch;
  int32_t format;
  int32_t width, height;
  int32_t resized_width, resized_height;
} cn2_cuda_picture;

typedef struct cn2_cuda_module {
  uint32_t version; /* CN2_CUDA_MODULE_VERSION */

  /* Bytes of device memory that `preprocess` needs for these pictures. */
  size_t (*workspace_size)(const cn2_cuda_picture* pictures, size_t count, int32_t interpolation);

  /* Resize pictures to the top left of canvases [count, height, width, 3] in device memory, on a
   * stream; the rest becomes 0. 0, or the number of a cudaError_t. */
  int32_t (*preprocess)(const cn2_cuda_picture* pictures, size_t count, int32_t interpolation,
                        int32_t height, int32_t width, void* canvases, void* workspace,
                        size_t workspace_size, void* stream);
} cn2_cuda_module;

/* The only symbol that the module shows. */
const cn2_cuda_module* cn2_cuda_module_get(void);
typedef const cn2_cuda_module* (*cn2_cuda_module_getter)(void);

#ifdef __cplusplus
}
#endif

#endif /* CN2_CUDA_MODULE_H */
