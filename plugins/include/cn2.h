/* libcn2: find objects in pictures with a model that `cn2 export` wrote, from C.
 *
 *     cn2_model *model = NULL;
 *     cn2_context *context = NULL;
 *     if (cn2_model_open("model.onnx", NULL, &model) != CN2_OK ||
 *         cn2_context_create(model, &context) != CN2_OK) {
 *       fprintf(stderr, "%s\n", cn2_last_error());
 *       return 1;
 *     }
 *     cn2_image image = CN2_IMAGE_INIT;
 *     image.data = pixels; image.width = 640; image.height = 480; image.pitch = 640 * 3;
 *     cn2_detection found[100];
 *     size_t count = 0;
 *     cn2_detect(context, &image, 1, NULL, found, 100, &count);
 *
 * Rules for all functions
 *   Errors    Each returns a status, CN2_OK or why not; cn2_last_error() then says it in one line.
 *             A call that fails leaves what its pointers point to as it was, but for what is
 *             documented.
 *   Pointers  Must not be null unless the function says so. Nothing that is passed in is kept, or
 *             freed, after the call returns, except by cn2_set_log.
 *   Strings   UTF-8, ending with 0. Those that are returned belong to the library; each function
 *             says for how long.
 *   Structs   Begin with struct_size, which the caller sets to sizeof(the struct), as the macros
 *             ..._INIT do. Fields that a caller's older header lacks have their defaults;
 *             those of a newer header must be 0. A size that this library cannot read is
 *             CN2_INVALID_ARGUMENT. All elements of an array have the size of the first one.
 *   Threads   A model may be used by any number of threads at once; a context by one at a time. One
 *             context per thread shares the model's weights. What is computed does not depend on
 *             the threads.
 *   Units     Pixels, milliseconds. Boxes are x0, y0, x1, y1, from the top left corner of the
 *             picture.
 */
#ifndef CN2_H
#define CN2_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define CN2_API __declspec(dllexport)
#else
#define CN2_API __attribute__((visibility("default")))
#endif

/* Raised when a function or struct changes so that a program must be compiled again. */
#define CN2_ABI_VERSION 1

/* ---- Status ---------------------------------------------------------------------------------- */

typedef int32_t cn2_status;

enum {
  CN2_OK = 0,
  CN2_INVALID_ARGUMENT = 1, /* a null pointer, a size, pitch, format or threshold that no call can
                               have */
  CN2_MODEL_ERROR = 2,      /* the model file is missing, torn, not ours, newer than this library,
                               or its hash is not the one beside it */
  CN2_UNAVAILABLE = 3,      /* the library or device that runs the model is not here */
  CN2_INFERENCE_ERROR = 4,  /* that library failed while it ran the model */
  CN2_OUT_OF_MEMORY = 5,
  CN2_INTERNAL_ERROR = 6    /* a bug in libcn2 */
};

/* The status in words ("invalid argument"); "unknown status" for any other number. Lasts
 * forever. */
CN2_API const char *cn2_status_name(cn2_status status);

/* What the last failed call of this thread expected, what came and what to do, in one line; "" if
 * none failed yet. Lasts until the next call of this thread that fails. */
CN2_API const char *cn2_last_error(void);

/* CN2_ABI_VERSION of the library that is loaded; a program compares it with the header's. */
CN2_API uint32_t cn2_abi_version(void);

/* The library's version, for example "0.1.0". Lasts forever. */
CN2_API const char *cn2_version(void);

/* ---- Log ------------------------------------------------------------------------------------- */

enum { CN2_LOG_DEBUG = 0, CN2_LOG_INFO = 1, CN2_LOG_WARNING = 2, CN2_LOG_ERROR = 3 };

/* Takes one line, without newline, which lasts for the call. It may be called from several threads
 * at once, and must call nothing of this library. */
typedef void (*cn2_log_callback)(void *user, int32_t level, const char *message);

/* Send the log of all models to a callback, from `lowest_level` on; null (as at the start):
 * nowhere. `user` is passed on as it is and must live until the callback is replaced and calls
 * under way are done. CN2_INVALID_ARGUMENT: no such level. */
CN2_API cn2_status cn2_set_log(cn2_log_callback callback, void *user, int32_t lowest_level);

/* ---- Models ---------------------------------------------------------------------------------- */

typedef struct cn2_model cn2_model;

typedef struct cn2_model_options {
  uint32_t struct_size;
  int32_t threads;          /* CPU threads of one call, at most 1024; 0: one per core */
  const char *device;       /* "cpu", "cuda", "cuda:1"; null: "cpu", and "cuda" for an engine,
                               which runs nowhere else */
  const char *runtime_path; /* the library of ONNX Runtime, or of TensorRT for an engine, to load;
                               null: $CN2_ONNXRUNTIME or $CN2_TENSORRT, one that the process has
                               loaded, the Python package's beside libcn2, the system's */
  int32_t standard_ops;     /* not 0: do not use the kernels of this library (docs/operators.md) */
} cn2_model_options;

#define CN2_MODEL_OPTIONS_INIT {sizeof(cn2_model_options), 0, NULL, NULL, 0}

/* Open a model file.
 *   path      .onnx from `cn2 export`, or .engine with its .engine.json beside it.
 *   options   null: the defaults.
 *   model     receives the model; the caller closes it.
 * CN2_MODEL_ERROR, CN2_UNAVAILABLE (no library runs this file here, no such device),
 * CN2_OUT_OF_MEMORY, CN2_INVALID_ARGUMENT. */
CN2_API cn2_status cn2_model_open(const char *path, const cn2_model_options *options,
                                  cn2_model **model);

/* Close a model; null is fine. Contexts that were created from it stay usable, and the memory is
 * given back with the last of them; strings from the model end here. */
CN2_API void cn2_model_close(cn2_model *model);

enum { CN2_ANTIALIAS = 0, CN2_LINEAR = 1 }; /* resizing: as Pillow's BILINEAR, as OpenCV's
                                               INTER_LINEAR */

typedef struct cn2_model_info {
  uint32_t struct_size;
  int32_t class_count;
  int32_t max_detections;         /* per picture */
  int32_t proposals;              /* of the first stage per picture; 0: there is no second stage */
  int32_t batch;                  /* pictures a run; 0: any number */
  int32_t canvas_height;          /* of every picture; 0: any multiple of canvas_divisor */
  int32_t canvas_width;
  int32_t canvas_divisor;
  int32_t short_edge;             /* a picture is resized to this short edge unless the long one
                                     would exceed long_edge; where the canvas is fixed, to fit it */
  int32_t long_edge;
  int32_t interpolation;          /* CN2_ANTIALIAS, CN2_LINEAR */
  float score_threshold;          /* detections at or below it are left out unless asked
                                     otherwise */
  float lowest_score_threshold;   /* the lowest that may be asked for */
} cn2_model_info;

#define CN2_MODEL_INFO_INIT {sizeof(cn2_model_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* What the model file says of itself. Fills as many fields as info->struct_size covers. */
CN2_API cn2_status cn2_model_get_info(const cn2_model *model, cn2_model_info *info);

/* The whole manifest, JSON (docs/model-file.md); null for a null model. Lasts until the model is
 * closed. */
CN2_API const char *cn2_model_manifest(const cn2_model *model);

/* The name of a class; null unless 0 <= class_id < class_count. Lasts until the model is closed. */
CN2_API const char *cn2_model_class_name(const cn2_model *model, int32_t class_id);

/* The dataset's own id of a class; -1 unless 0 <= class_id < class_count. */
CN2_API int64_t cn2_model_category_id(const cn2_model *model, int32_t class_id);

/* What runs the model: "onnxruntime 1.32.0 on cpu, fused operators"; null for a null model. Lasts
 * until the model is closed. */
CN2_API const char *cn2_model_runtime(const cn2_model *model);

/* ---- Pictures -------------------------------------------------------------------------------- */

enum {
  CN2_RGB8 = 0,  /* 3 bytes a pixel */
  CN2_BGR8 = 1,
  CN2_RGBA8 = 2, /* 4 bytes a pixel; the last one is ignored */
  CN2_BGRA8 = 3,
  CN2_GREY8 = 4, /* 1 byte a pixel */
  CN2_NV12 = 5   /* a plane of luma, one of chroma pairs for 2x2 pixels each; ITU-R BT.601, limited
                    range, as OpenCV's COLOR_YUV2RGB_NV12; width and height are even */
};

enum { CN2_HOST = 0, CN2_CUDA = 1 }; /* pictures in CUDA memory are resized there where libcn2_cuda
                                        is beside libcn2, else on the host */

typedef struct cn2_image {
  uint32_t struct_size;
  int32_t format;        /* CN2_RGB8, ... */
  int32_t memory;        /* CN2_HOST, or CN2_CUDA: the pointers are of the model's CUDA device */
  int32_t width;         /* pixels, 1 to 65535 */
  int32_t height;
  const void *data;      /* first byte of the top left pixel */
  size_t pitch;          /* bytes from one row to the next, at least those of a row; 0: exactly
                            those */
  const void *chroma;    /* CN2_NV12 only: the second plane; null: it follows the first one */
  size_t chroma_pitch;   /* 0: as pitch */
} cn2_image;

#define CN2_IMAGE_INIT {sizeof(cn2_image), 0, 0, 0, 0, NULL, 0, NULL, 0}

/* Resize a picture, also to another format's RGB: what cn2_detect does with each before it runs the
 * model.
 *   image           in host memory.
 *   interpolation   CN2_ANTIALIAS, CN2_LINEAR.
 *   rgb             receives height rows of width * 3 bytes, `pitch` bytes apart (0: width * 3).
 * CN2_INVALID_ARGUMENT, CN2_OUT_OF_MEMORY. Within 1 grey level of Pillow and OpenCV. Any thread. */
CN2_API cn2_status cn2_resize(const cn2_image *image, int32_t interpolation, uint8_t *rgb,
                              int32_t width, int32_t height, size_t pitch);

/* ---- Detection ------------------------------------------------------------------------------- */

typedef struct cn2_context cn2_context;

/* The buffers that one thread needs. The caller destroys it.
 * CN2_OUT_OF_MEMORY, CN2_INVALID_ARGUMENT. */
CN2_API cn2_status cn2_context_create(cn2_model *model, cn2_context **context);

/* Destroy a context; null is fine. */
CN2_API void cn2_context_destroy(cn2_context *context);

typedef struct cn2_detection {
  float box[4];     /* x0, y0, x1, y1, pixels of the picture, inside it; x1 > x0, y1 > y0 */
  float score;      /* 0 to 1 */
  int32_t class_id; /* 0-based; no background */
} cn2_detection;

typedef struct cn2_detect_options {
  uint32_t struct_size;
  float score_threshold; /* keep detections above it; below 0: the model's own */
  void *cuda_stream;     /* a CUstream or cudaStream_t of the model's device on which the pictures
                            become ready: they are read after what is on it. null: they are ready
                            now. CUDA's default stream is (void *)1 here. */
} cn2_detect_options;

#define CN2_DETECT_OPTIONS_INIT {sizeof(cn2_detect_options), -1.0f, NULL}

/* Find the objects in pictures.
 *   images       `image_count` pictures of any sizes and formats; a picture's result does not
 *                depend on the others.
 *   options      null: the defaults.
 *   detections   room for `image_count * capacity`; those of picture i begin at i * capacity, the
 *                best first. Null is fine where capacity is 0.
 *   counts       `image_count` numbers: how many each picture has, at most max_detections. Where it
 *                is more than `capacity`, the best `capacity` are written.
 * image_count 0 is fine, with null pointers too. After a failure detections and counts are of no
 * use.
 * CN2_INVALID_ARGUMENT, CN2_UNAVAILABLE (device memory, and the model is not on that device),
 * CN2_INFERENCE_ERROR, CN2_MODEL_ERROR (the graph returns what none of `cn2 export` does),
 * CN2_OUT_OF_MEMORY. One thread per context. */
CN2_API cn2_status cn2_detect(cn2_context *context, const cn2_image *images, size_t image_count,
                              const cn2_detect_options *options, cn2_detection *detections,
                              size_t capacity, size_t *counts);

typedef struct cn2_timings {
  uint32_t struct_size;
  float preprocess_ms;  /* formats, resize, canvas */
  float inference_ms;   /* inside the runtime */
  float postprocess_ms; /* boxes to the pictures' own pixels */
  float device_preprocess_ms; /* by the CUDA device's clock, of engines alone: until the canvases
                                 are in its memory, copied or made there from pictures in it, */
  float device_inference_ms;  /* and from then on until the results are on the host */
} cn2_timings;

#define CN2_TIMINGS_INIT {sizeof(cn2_timings), 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}

/* Where the time of the context's last cn2_detect or cn2_infer went, all its pictures together;
 * zeros before the first. */
CN2_API cn2_status cn2_context_get_timings(const cn2_context *context, cn2_timings *timings);

/* ---- The graph itself, for callers that place pictures on the canvas themselves -------------- */

typedef struct cn2_raw_detections {
  uint32_t struct_size;
  int32_t rows;                  /* D, per picture */
  const int32_t *num_detections; /* [batch] */
  const float *boxes;            /* [batch, D, 4] pixels of the resized picture; zeros past
                                    num_detections */
  const float *scores;           /* [batch, D] descending */
  const int32_t *classes;        /* [batch, D] */
} cn2_raw_detections;

#define CN2_RAW_DETECTIONS_INIT {sizeof(cn2_raw_detections), 0, NULL, NULL, NULL, NULL}

/* Run the graph once.
 *   canvases        [batch, height, width, 3] RGB in host memory, each picture at the top left of
 *                   its canvas; height and width are multiples of canvas_divisor.
 *   picture_sizes   [batch, 2] height and width of the picture on each canvas.
 *   options         null: the defaults.
 *   raw             receives pointers to the context's memory; they last until its next call.
 * CN2_INVALID_ARGUMENT, CN2_INFERENCE_ERROR, CN2_MODEL_ERROR, CN2_OUT_OF_MEMORY. One thread per
 * context. */
CN2_API cn2_status cn2_infer(cn2_context *context, const uint8_t *canvases, int32_t batch,
                             int32_t height, int32_t width, const int32_t *picture_sizes,
                             const cn2_detect_options *options, cn2_raw_detections *raw);

#ifdef __cplusplus
}
#endif

#endif /* CN2_H */
