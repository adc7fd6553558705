// Modulated deformable convolution on the GPU, as DeformConv of ONNX opset 19 defines it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "feature_type.h"

namespace cn2 {

struct DeformConvShape {
  int64_t batch, channels, height, width;
  int64_t outputs;  // channels of the result
  int64_t kernel_height, kernel_width;
  int64_t stride_y, stride_x;
  int64_t dilation_y, dilation_x;
  int64_t pad_top, pad_left, pad_bottom, pad_right;
  int64_t groups;         // of channels and of outputs
  int64_t offset_groups;  // of channels: each has offsets and masks of its own

  int64_t out_height() const {
    return (height + pad_top + pad_bottom - dilation_y * (kernel_height - 1) - 1) / stride_y + 1;
  }
  int64_t out_width() const {
    return (width + pad_left + pad_right - dilation_x * (kernel_width - 1) - 1) / stride_x + 1;
  }
};

// All in device memory and of one type. With taps = kernel_height * kernel_width:
//   x        [batch, channels, height, width]
//   weight   [outputs, channels / groups, kernel_height, kernel_width]
//   offset   [batch, offset_groups * taps * 2, out_height, out_width]: dy, dx in cells for each tap
//   bias     [outputs], or null: zeros
//   mask     [batch, offset_groups * taps, out_height, out_width], or null: ones
//   y        [batch, outputs, out_height, out_width]
struct DeformConvTensors {
  const void* x;
  const void* weight;
  const void* offset;
  const void* bias;
  const void* mask;
  void* y;
};

//   workspace   deform_conv_workspace_size(shape) bytes; cudaErrorInvalidValue if less.
cudaError_t deform_conv_cuda(const DeformConvTensors& tensors, const DeformConvShape& shape,
                             FeatureType type, void* workspace, size_t workspace_size,
                             cudaStream_t stream) noexcept;

// Bytes; 0 for a shape that no call can have.
size_t deform_conv_workspace_size(const DeformConvShape& shape) noexcept;

// Whether a call can have these sizes and attributes.
bool is_possible_on_cuda(const DeformConvShape& shape) noexcept;

}  // namespace cn2
