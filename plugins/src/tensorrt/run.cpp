#include "tensorrt/run.h"

#include "tensorrt/work.h"

namespace cn2 {

TensorrtShared::TensorrtShared(std::string plan, std::string library, const Manifest& says,
                               int number, const cn2_tensorrt_module& functions)
    : path(std::move(plan)),
      name(std::move(library)),
      manifest(says),
      device(number),
      context(number),
      module(functions) {}

TensorrtShared::~TensorrtShared() {
  if (engine != nullptr) {
    cuda::release_in(context, [&] { module.close(engine); });
  }
}

TensorrtRun::TensorrtRun(const TensorrtShared& shared) : shared_(shared) {
  const cuda::Current current(shared_.context);
  work_ = std::make_unique<TensorrtWork>(shared);
}

TensorrtRun::~TensorrtRun() {
  if (!cuda::release_in(shared_.context, [&] { work_.reset(); })) {
    static_cast<void>(work_.release());
  }
}

size_t TensorrtRun::slots() const {
  return TensorrtWork::kSlots;
}

uint8_t* TensorrtRun::canvas_memory(size_t slot, size_t bytes) {
  const cuda::Current current(shared_.context);
  return work_->canvas_memory(slot, bytes);
}

void TensorrtRun::check_device_picture(const Pixels& picture, Name what) const {
  const cuda::Current current(shared_.context);
  check_on_device(picture, shared_.device, what);
}

void TensorrtRun::begin(size_t slot, const EngineInput& input) {
  const cuda::Current current(shared_.context);
  work_->begin(slot, input);
}

EngineOutput TensorrtRun::finish(size_t slot) {
  const cuda::Current current(shared_.context);
  return work_->finish(slot);
}

void TensorrtRun::abandon() noexcept {
  try {
    const cuda::Current current(shared_.context);
    work_->abandon();
  } catch (const Error&) {  // the device is lost; the call's own error says so
  }
}

}  // namespace cn2
