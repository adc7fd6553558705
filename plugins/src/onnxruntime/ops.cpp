#include "ops.h"

#include <map>
#include <mutex>
#include <new>

namespace cn2 {
namespace {

// The domain of each ONNX Runtime of this process; sessions point to it as long as they live, so nothing
// here is ever destroyed.
struct Domains {
  std::mutex mutex;
  std::map<const OrtApi*, OrtCustomOpDomain*> of_api;
};

Domains& domains() {
  static Domains& all = *new Domains;
  return all;
}

OrtStatus* find_domain(const OrtApi* api, OrtCustomOpDomain** domain) {
  Domains& all = domains();
  const std::lock_guard lock(all.mutex);
  OrtCustomOpDomain*& ours = all.of_api[api];
  if (ours == nullptr) {
    if (OrtStatus* status = api->CreateCustomOpDomain("cn2", &ours)) {
      return status;
    }
  }
  *domain = ours;
  return nullptr;
}

}  // namespace

OrtStatus* register_ops(const OrtApi* api, OrtSessionOptions* options) noexcept {
  try {
    OrtCustomOpDomain* domain = nullptr;
    if (OrtStatus* status = find_domain(api, &domain)) {
      return status;
    }
    return api->AddCustomOpDomain(options, domain);
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, error.what());
  }
}

}  // namespace cn2
