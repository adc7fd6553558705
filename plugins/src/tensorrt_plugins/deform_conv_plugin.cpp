#include "deform_conv_cuda.h"
#include "plugin.h"

namespace cn2 {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

// The operator of ONNX opset 19: x, weight, offset, bias, mask; the last two may be left out.
class DeformConv {
 public:
  struct Shape {
    DeformConvShape call;
    bool biased, masked;
  };

  static constexpr const char* kName = "DeformConv";
  inline static const std::array kFields{
      PluginField{"kernel_shape", nullptr, PluginFieldType::kINT32},
      PluginField{"strides", nullptr, PluginFieldType::kINT32},
      PluginField{"dilations", nullptr, PluginFieldType::kINT32},
      PluginField{"pads", nullptr, PluginFieldType::kINT32},
      PluginField{"group", nullptr, PluginFieldType::kINT32},
      PluginField{"offset_group", nullptr, PluginFieldType::kINT32}};

  explicit DeformConv(const Fields& fields)
      : kernel_(fields.get_ints("kernel_shape")),
        strides_(fields.get_ints("strides", 2, 1)),
        dilations_(fields.get_ints("dilations", 2, 1)),
        pads_(fields.get_ints("pads", 4, 0)),
        groups_(fields.get_ints("group", 1, 1)),
        offset_groups_(fields.get_ints("offset_group", 1, 1)) {
    if (kernel_.size() != 2) {
      throw PluginError("kernel_shape: expected 2 numbers, got " + std::to_string(kernel_.size()));
    }
    for (const int64_t stride : strides_) {
      if (stride < 1) {
        throw PluginError("strides: expected 1 or more, got " + std::to_string(stride));
      }
    }
  }

  void write(StoredFields& fields) const {
    fields.add("kernel_shape", kernel_);
    fields.add("strides", strides_);
    fields.add("dilations", dilations_);
    fields.add("pads", pads_);
    fields.add("group", groups_);
    fields.add("offset_group", offset_groups_);
  }

  static int32_t count_outputs() { return 1; }
  static Kind input(int32_t) { return Kind::kFeature; }
  static Kind output(int32_t) { return Kind::kFeature; }

  void make_shapes(std::span<const nvinfer1::DimsExprs> inputs, ShapeMaker& make,
                   nvinfer1::DimsExprs* outputs) const {
    const nvinfer1::DimsExprs& x = expect_rank(inputs, 0, "x", 4);
    const nvinfer1::DimsExprs& weight = expect_rank(inputs, 1, "weight", 4);
    const auto side = [&](size_t axis) {
      const int64_t taken = dilations_[axis] * (kernel_[axis] - 1) + 1;
      const int64_t more = pads_[axis] + pads_[axis + 2] - taken;
      const ShapeMaker::Size steps =
          make.floor_div(make.sum(x.d[axis + 2], make.number(more)), make.number(strides_[axis]));
      return make.sum(steps, make.number(1));
    };
    outputs[0] = make.shape({x.d[0], weight.d[0], side(0), side(1)});
  }

  Shape shape(const Sizes& sizes) const {
    const int64_t taps = kernel_[0] * kernel_[1];
    const int64_t offset_groups = offset_groups_[0];
    const int64_t* x = sizes.expect(0, "x", {-1, -1, -1, -1});
    const int64_t* weight = sizes.expect(1, "weight", {-1, -1, kernel_[0], kernel_[1]});
    const size_t count = sizes.inputs.size();
    const Shape made{{x[0], x[1], x[2], x[3], weight[0], kernel_[0], kernel_[1], strides_[0],
                      strides_[1], dilations_[0], dilations_[1], pads_[0], pads_[1], pads_[2],
                      pads_[3], groups_[0], offset_groups},
                     count > 3,
                     count > 4};
    if (!is_possible_on_cuda(made.call) || weight[1] * groups_[0] != x[1]) {
      throw PluginError("expected sizes and attributes as DeformConv of ONNX opset 19 has, got x " +
                        describe({x, 4}) + " and weight " + describe({weight, 4}));
    }
    const int64_t height = made.call.out_height();
    const int64_t width = made.call.out_width();
    sizes.expect(2, "offset", {x[0], 2 * offset_groups * taps, height, width});
    if (made.biased) {
      sizes.expect(3, "bias", {weight[0]});
    }
    if (made.masked) {
      sizes.expect(4, "mask", {x[0], offset_groups * taps, height, width});
    }
    return made;
  }

  static size_t workspace(const Shape& shape) { return deform_conv_workspace_size(shape.call); }

  cudaError_t launch(const Shape& shape, FeatureType type, const void* const* inputs,
                     void* const* outputs, void* workspace, cudaStream_t stream) const {
    const DeformConvTensors tensors{inputs[0],
                                    inputs[1],
                                    inputs[2],
                                    shape.biased ? inputs[3] : nullptr,
                                    shape.masked ? inputs[4] : nullptr,
                                    outputs[0]};
    return deform_conv_cuda(tensors, shape.call, type, workspace, DeformConv::workspace(shape),
                            stream);
  }

 private:
  std::vector<int64_t> kernel_, strides_, dilations_, pads_, groups_, offset_groups_;
};

}  // namespace

nvinfer1::IPluginCreatorInterface& deform_conv_creator() {
  static Creator<DeformConv> creator(kPluginNamespace);
  return creator;
}

nvinfer1::IPluginCreatorInterface& standard_deform_conv_creator() {
  static Creator<DeformConv> creator("");
  return creator;
}

}  // namespace cn2
