/* The kernels for ctypes, private to the tests: the functions of the headers beside this one, with plain
 * arguments. Each returns cn2::Status as a number. threads: 0 calls the tasks one after the other, more:
 * on so many threads. */
#ifndef CN2_KERNELS_H
#define CN2_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CN2_KERNELS_API __attribute__((visibility("default")))

typedef struct cn2_kernels_level {
  const float* data;
  int64_t height, width, stride;
} cn2_kernels_level;

CN2_KERNELS_API int32_t cn2_kernels_pyramid_roi_align(
    const float* rois, const cn2_kernels_level* levels, int64_t level_count,
    const float* level_borders, int64_t batch, int64_t roi_count, int64_t channels,
    int64_t output_size, int64_t sampling_ratio, float canonical_size, int32_t threads,
    float* pooled);

/* classes and kept_classes may be null, together. */
CN2_KERNELS_API int32_t cn2_kernels_proposal_nms(const float* boxes, const float* scores,
                                                 const int32_t* classes, int64_t batch,
                                                 int64_t box_count, int64_t proposals,
                                                 float iou_threshold, int32_t threads,
                                                 float* kept_boxes, float* kept_scores,
                                                 int32_t* kept_classes);

CN2_KERNELS_API int32_t cn2_kernels_detection_nms(const float* boxes, const float* scores,
                                                  int64_t batch, int64_t rows, int64_t classes,
                                                  int32_t shared_boxes, int64_t detections,
                                                  float iou_threshold, float score_threshold,
                                                  int32_t threads, int32_t* num_detections,
                                                  float* found_boxes, float* found_scores,
                                                  int32_t* found_classes);

#ifdef __cplusplus
}
#endif

#endif /* CN2_KERNELS_H */
