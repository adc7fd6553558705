/* The launchers of the CUDA kernels for callers whose arrays are on the device already, as torch's are: what they
 * take, plus a stream; nothing is copied, allocated or waited for. Each returns a cudaError_t as a number, each
 * workspace function bytes. `sizes` are the numbers of the kernel's Shape struct in their order, without floats. */
#ifndef CN2_DEVICE_ENTRIES_H
#define CN2_DEVICE_ENTRIES_H

#include "cuda_entries.h"

#ifdef __cplusplus
extern "C" {
#endif

/* batch, rois, channels, output_size, sampling_ratio. `levels` and `borders` are the host's, their data the
 * device's, of half precision where `half`; so is pooled. */
CN2_KERNELS_API int32_t cn2_cuda_launch_pyramid_roi_align(
    const float* rois, const cn2_kernels_level* levels, int64_t level_count, const float* borders,
    const int64_t* sizes, float canonical_size, int32_t half, void* pooled, void* workspace,
    int64_t workspace_size, void* stream);
CN2_KERNELS_API int64_t cn2_cuda_workspace_pyramid_roi_align(const int64_t* sizes,
                                                             float canonical_size);

/* batch, boxes, proposals. classes may be null, and kept_classes then is. */
CN2_KERNELS_API int32_t cn2_cuda_launch_proposal_nms(const float* boxes, const float* scores,
                                                     const int32_t* classes, const int64_t* sizes,
                                                     float iou_threshold, float* kept_boxes,
                                                     float* kept_scores, int32_t* kept_classes,
                                                     void* workspace, int64_t workspace_size,
                                                     void* stream);
CN2_KERNELS_API int64_t cn2_cuda_workspace_proposal_nms(const int64_t* sizes, float iou_threshold);

/* batch, rows, classes, whether boxes are [batch, rows, 1, 4], detections. score_threshold is on the device. */
CN2_KERNELS_API int32_t cn2_cuda_launch_detection_nms(
    const float* boxes, const float* scores, const float* score_threshold, const int64_t* sizes,
    float iou_threshold, int32_t* num_detections, float* found_boxes, float* found_scores,
    int32_t* found_classes, void* workspace, int64_t workspace_size, void* stream);
CN2_KERNELS_API int64_t cn2_cuda_workspace_detection_nms(const int64_t* sizes, float iou_threshold);

/* All numbers of cn2::DeformConvShape. bias and mask may be null. */
CN2_KERNELS_API int32_t cn2_cuda_launch_deform_conv(const void* x, const void* weight,
                                                    const void* offset, const void* bias,
                                                    const void* mask, const int64_t* sizes,
                                                    int32_t half, void* y, void* workspace,
                                                    int64_t workspace_size, void* stream);
CN2_KERNELS_API int64_t cn2_cuda_workspace_deform_conv(const int64_t* sizes);

/* interpolation, canvas height, canvas width. `pictures` are the host's, their planes the device's. */
CN2_KERNELS_API int32_t cn2_cuda_launch_preprocess(const cn2_cuda_picture* pictures, int64_t count,
                                                   const int64_t* sizes, uint8_t* canvases,
                                                   int32_t* image_sizes, void* workspace,
                                                   int64_t workspace_size, void* stream);
CN2_KERNELS_API int64_t cn2_cuda_workspace_preprocess(const cn2_cuda_picture* pictures,
                                                      int64_t count, const int64_t* sizes);

#ifdef __cplusplus
}
#endif

#endif /* CN2_DEVICE_ENTRIES_H */
