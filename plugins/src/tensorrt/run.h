// One context's runs of an engine.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../cuda_preprocess.h"
#include "../engine.h"
#include "module.h"
#include "tensorrt/profiles.h"

namespace cn2 {

// What all contexts of an engine share.
struct TensorrtShared {
  TensorrtShared(std::string plan, std::string library, const Manifest& says, int number,
                 const cn2_tensorrt_module& functions);
  ~TensorrtShared();
  TensorrtShared(const TensorrtShared&) = delete;
  TensorrtShared& operator=(const TensorrtShared&) = delete;

  std::string path;  // of the plan
  std::string name;  // "TensorRT 10.14.1"
  Manifest manifest;
  int device;
  cuda::PrimaryContext context;
  const cn2_tensorrt_module& module;
  const cn2_cuda_module* kernels = nullptr;  // null: pictures are resized on the host
  cn2_tensorrt_engine* engine = nullptr;
  std::vector<Profile> profiles{};
  bool takes_threshold = false;
};

// Makes the device's context current for what TensorrtWork does.
class TensorrtRun final : public EngineRun {
 public:
  explicit TensorrtRun(const TensorrtShared& shared);
  ~TensorrtRun() override;

  size_t slots() const override;
  uint8_t* canvas_memory(size_t slot, size_t bytes) override;
  bool takes_device_pictures() const override { return shared_.kernels != nullptr; }
  void check_device_picture(const Pixels& picture, Name what) const override;
  void begin(size_t slot, const EngineInput& input) override;
  EngineOutput finish(size_t slot) override;
  void abandon() noexcept override;

 private:
  const TensorrtShared& shared_;
  std::unique_ptr<class TensorrtWork> work_;
};

}  // namespace cn2
