// The entries of cn2_kernels.h, and a plain pool of threads for them.
#include <atomic>
#include <thread>
#include <vector>

#include "cn2_kernels.h"
#include "detection_nms.h"
#include "proposal_nms.h"
#include "pyramid_roi_align.h"

namespace {

// `pool` is the number of threads; each takes the next task until none is left.
void run_on_threads(void* pool, void (*task)(void* data, size_t index), size_t count, void* data) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t index; (index = next++) < count;) {
      task(data, index);
    }
  };
  std::vector<std::jthread> workers;
  for (int32_t i = 0; i < *static_cast<int32_t*>(pool); ++i) {
    workers.emplace_back(work);
  }
}

cn2::ThreadPool make_pool(int32_t& threads) {
  return threads > 0 ? cn2::ThreadPool{run_on_threads, &threads} : cn2::ThreadPool{};
}

}  // namespace

int32_t cn2_kernels_pyramid_roi_align(const float* rois, const cn2_kernels_level* levels,
                                      int64_t level_count, const float* level_borders,
                                      int64_t batch, int64_t roi_count, int64_t channels,
                                      int64_t output_size, int64_t sampling_ratio,
                                      float canonical_size, int32_t threads, float* pooled) {
  std::vector<cn2::PyramidLevel> all;
  for (int64_t i = 0; i < level_count; ++i) {
    all.push_back({levels[i].data, levels[i].height, levels[i].width, levels[i].stride});
  }
  const cn2::PyramidRoIAlignShape shape{batch,       roi_count,      channels,
                                        output_size, sampling_ratio, canonical_size};
  return static_cast<int32_t>(cn2::pyramid_roi_align(rois, all.data(), all.size(), level_borders,
                                                     shape, make_pool(threads), pooled));
}

int32_t cn2_kernels_proposal_nms(const float* boxes, const float* scores, const int32_t* classes,
                                 int64_t batch, int64_t box_count, int64_t proposals,
                                 float iou_threshold, int32_t threads, float* kept_boxes,
                                 float* kept_scores, int32_t* kept_classes) {
  const cn2::ProposalNmsShape shape{batch, box_count, proposals, iou_threshold};
  return static_cast<int32_t>(cn2::proposal_nms(boxes, scores, classes, shape, make_pool(threads),
                                                kept_boxes, kept_scores, kept_classes));
}

int32_t cn2_kernels_detection_nms(const float* boxes, const float* scores, int64_t batch,
                                  int64_t rows, int64_t classes, int32_t shared_boxes,
                                  int64_t detections, float iou_threshold, float score_threshold,
                                  int32_t threads, int32_t* num_detections, float* found_boxes,
                                  float* found_scores, int32_t* found_classes) {
  const cn2::DetectionNmsShape shape{batch,      rows,          classes,        shared_boxes != 0,
                                     detections, iou_threshold, score_threshold};
  return static_cast<int32_t>(cn2::detection_nms(boxes, scores, shape, make_pool(threads),
                                                 num_detections, found_boxes, found_scores,
                                                 found_classes));
}
