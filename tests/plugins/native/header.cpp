// cn2.h in C++20: handles that close themselves. header MODEL.onnx RUNTIME
#include <cn2.h>

#include <iostream>
#include <memory>
#include <vector>

struct Close {
  void operator()(cn2_model* model) const { cn2_model_close(model); }
  void operator()(cn2_context* context) const { cn2_context_destroy(context); }
};

int main(int count, char** arguments) {
  if (count != 3) {
    return 2;
  }
  cn2_model_options options = CN2_MODEL_OPTIONS_INIT;
  options.runtime_path = arguments[2];
  cn2_model* opened = nullptr;
  if (cn2_model_open(arguments[1], &options, &opened) != CN2_OK) {
    std::cerr << cn2_last_error() << '\n';
    return 1;
  }
  const std::unique_ptr<cn2_model, Close> model(opened);
  cn2_context* created = nullptr;
  cn2_context_create(model.get(), &created);
  const std::unique_ptr<cn2_context, Close> context(created);

  const std::vector<uint8_t> pixels(64 * 96 * 3, 204);
  cn2_image image = CN2_IMAGE_INIT;
  image.data = pixels.data();
  image.width = 96;
  image.height = 64;
  std::vector<cn2_detection> found(10);
  size_t number = 0;
  const cn2_status status =
      cn2_detect(context.get(), &image, 1, nullptr, found.data(), found.size(), &number);
  std::cout << cn2_status_name(status) << ' ' << number << ' ' << found[1].box[3] << '\n';
  return status;
}
