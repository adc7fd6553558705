// libcn2_trt_plugins: what TensorRT calls after it has loaded the library.
#include "plugin.h"

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const*
getCreators(int32_t& count) {
  static nvinfer1::IPluginCreatorInterface* const creators[] = {
      &cn2::pyramid_roi_align_creator(), &cn2::proposal_nms_creator(),
      &cn2::detection_nms_creator(), &cn2::deform_conv_creator(),
      &cn2::standard_deform_conv_creator()};
  count = static_cast<int32_t>(std::size(creators));
  return creators;
}

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(
    nvinfer1::ILoggerFinder* finder) {
  cn2::set_logger_finder(finder);
}

// The version of the domain cn2 (docs/operators.md), for programs that want to know; TensorRT and
// libcn2 do not ask.
extern "C" __attribute__((visibility("default"))) uint32_t cn2_operators_version(void) {
  return 1;
}
