/* What the library of emulated TensorRT plugins has: a small TensorRT around them, for ctypes. Arrays are the
 * host's. Unless said otherwise 0 is success. */
#ifndef CN2_PLUGIN_ENTRIES_H
#define CN2_PLUGIN_ENTRIES_H

#include "cn2_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* nvinfer1::PluginField, PluginTensorDesc's type and format, Dims. */
typedef struct cn2_plugin_field {
  const char* name;
  const void* data;
  int32_t type, length;
} cn2_plugin_field;

typedef struct cn2_plugin_tensor {
  int32_t type, format;
  int32_t rank;
  int64_t sizes[8];
  void* data;
} cn2_plugin_tensor;

/* As a parser (phase 0) or an engine (1) does; null where it fails. */
CN2_KERNELS_API void* cn2_cuda_plugin_create(const char* name, const char* space,
                                             const cn2_plugin_field* fields, int32_t count,
                                             int32_t phase);
CN2_KERNELS_API void* cn2_cuda_plugin_clone(void* plugin);
CN2_KERNELS_API void cn2_cuda_plugin_destroy(void* plugin);

/* "NAME VERSION NAMESPACE" of creator `index`, and of each field it knows; null past the last. */
CN2_KERNELS_API const char* cn2_cuda_plugin_creator(int32_t index);

/* What it would serialise, the first `capacity`; returns how many. They point into the plugin. */
CN2_KERNELS_API int32_t cn2_cuda_plugin_fields(void* plugin, cn2_plugin_field* fields,
                                               int32_t capacity);

CN2_KERNELS_API int32_t cn2_cuda_plugin_count_outputs(void* plugin);

/* Whether the tensor at `place` among inputs and then outputs may be as it is, given those before it. */
CN2_KERNELS_API int32_t cn2_cuda_plugin_supports(void* plugin, int32_t place,
                                                 const cn2_plugin_tensor* tensors, int32_t inputs,
                                                 int32_t outputs);

/* Types and shapes of the outputs, of the inputs'. */
CN2_KERNELS_API int32_t cn2_cuda_plugin_infer(void* plugin, const cn2_plugin_tensor* inputs,
                                              int32_t input_count, cn2_plugin_tensor* outputs,
                                              int32_t output_count);

/* Inputs as large as they may become. */
CN2_KERNELS_API int32_t cn2_cuda_plugin_configure(void* plugin, const cn2_plugin_tensor* inputs,
                                                  int32_t input_count);
CN2_KERNELS_API int64_t cn2_cuda_plugin_workspace(void* plugin, const cn2_plugin_tensor* inputs,
                                                  int32_t input_count);

/* Attach to a context, change the shapes, and enqueue, with a workspace as large as was asked for. */
CN2_KERNELS_API int32_t cn2_cuda_plugin_run(void* plugin, const cn2_plugin_tensor* inputs,
                                            int32_t input_count, const cn2_plugin_tensor* outputs,
                                            int32_t output_count);

/* The lines that were logged since the last call, each ended; valid until the next call. */
CN2_KERNELS_API const char* cn2_cuda_plugin_take_log(void);

#ifdef __cplusplus
}
#endif

#endif /* CN2_PLUGIN_ENTRIES_H */
