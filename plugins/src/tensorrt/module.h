/* The seam between libcn2 and libcn2_tensorrt10 and 11, which are one source compiled against the
 * headers of TensorRT 10 and of 11: plain C, and no type of TensorRT. Inside the package only; both
 * sides are always of one version.
 *
 * Functions that return 0 or null have failed; `why` then says it in TensorRT's words. CUDA memory
 * and streams are the caller's, and the device's context is current for every call. */
#ifndef CN2_TENSORRT_MODULE_H
#define CN2_TENSORRT_MODULE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CN2_TENSORRT_MODULE_VERSION 3
#define CN2_TENSORRT_MAX_DIMENSIONS 8
#define CN2_TENSORRT_WHY 512

typedef struct cn2_tensorrt_engine cn2_tensorrt_engine;
typedef struct cn2_tensorrt_context cn2_tensorrt_context;

/* Takes one line; `level` as CN2_LOG_ERROR. */
typedef void (*cn2_tensorrt_log)(int32_t level, const char* message);

typedef struct cn2_tensorrt_why {
  char text[CN2_TENSORRT_WHY];
  int32_t is_plugins; /* 1: the plugin library does not load; the plan was not looked at */
} cn2_tensorrt_why;

typedef struct cn2_tensorrt_shape {
  int32_t count;                              /* dimensions; below 0: none is known */
  int64_t sides[CN2_TENSORRT_MAX_DIMENSIONS]; /* -1: any */
} cn2_tensorrt_shape;

enum { CN2_TENSORRT_FLOAT = 0, CN2_TENSORRT_INT32 = 3, CN2_TENSORRT_UINT8 = 5 };
enum { CN2_TENSORRT_MIN = 0, CN2_TENSORRT_OPT = 1, CN2_TENSORRT_MAX = 2 };

typedef struct cn2_tensorrt_tensor {
  const char* name; /* the engine's, while it is open */
  int32_t is_input;
  int32_t type;      /* CN2_TENSORRT_FLOAT, ...; others are TensorRT's own numbers */
  int32_t on_device; /* 0: in host memory, as shapes are */
  cn2_tensorrt_shape shape;
} cn2_tensorrt_tensor;

typedef struct cn2_tensorrt_request {
  void* library;       /* of dlopen: libnvinfer or libtensorrt_rtx */
  const char* plugins; /* the plugin library; null: none */
  const void* plan;
  size_t plan_size;
  int32_t host_code; /* 1: the plan may run code of its own on the host */
  cn2_tensorrt_log log;
} cn2_tensorrt_request;

typedef struct cn2_tensorrt_module {
  uint32_t version; /* CN2_TENSORRT_MODULE_VERSION */
  uint32_t abi;     /* 10, 11: major version of the headers */

  cn2_tensorrt_engine* (*open)(const cn2_tensorrt_request* request, cn2_tensorrt_why* why);
  void (*close)(cn2_tensorrt_engine* engine);
  int32_t (*tensor_count)(const cn2_tensorrt_engine* engine);
  void (*tensor)(const cn2_tensorrt_engine* engine, int32_t index, cn2_tensorrt_tensor* tensor);
  int32_t (*profile_count)(const cn2_tensorrt_engine* engine);
  void (*profile_shape)(const cn2_tensorrt_engine* engine, int32_t profile, const char* tensor,
                        int32_t which, cn2_tensorrt_shape* shape);

  /* Bytes that a context works in, with any shapes. */
  size_t (*memory_size)(const cn2_tensorrt_engine* engine);
  /* It works in `memory`, which may be that of other contexts whose runs never overlap its own. */
  cn2_tensorrt_context* (*create_context)(cn2_tensorrt_engine* engine, void* memory,
                                          size_t memory_size, cn2_tensorrt_why* why);
  void (*destroy_context)(cn2_tensorrt_context* context);
  int32_t (*set_profile)(cn2_tensorrt_context* context, int32_t profile, void* stream,
                         cn2_tensorrt_why* why);
  int32_t (*set_shape)(cn2_tensorrt_context* context, const char* tensor,
                       const cn2_tensorrt_shape* shape, cn2_tensorrt_why* why);
  int32_t (*set_address)(cn2_tensorrt_context* context, const char* tensor, void* address,
                         cn2_tensorrt_why* why);
  /* Of an output, once those of all inputs are set. */
  void (*output_shape)(const cn2_tensorrt_context* context, const char* tensor,
                       cn2_tensorrt_shape* shape);
  int32_t (*enqueue)(cn2_tensorrt_context* context, void* stream, cn2_tensorrt_why* why);
} cn2_tensorrt_module;

/* The only symbol that a module shows. */
const cn2_tensorrt_module* cn2_tensorrt_module_get(void);
typedef const cn2_tensorrt_module* (*cn2_tensorrt_module_getter)(void);

#ifdef __cplusplus
}
#endif

#endif /* CN2_TENSORRT_MODULE_H */
