#include "ops.h"

#include <map>
#include <mutex>

#include "operator.h"

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

// A new domain with the operators.
OrtCustomOpDomain* make_domain(const OrtApi& api) {
  OrtCustomOpDomain* domain = nullptr;
  throw_failure(api, api.CreateCustomOpDomain("cn2", &domain));
  std::vector<const OrtCustomOp*> operators = cuda_operators();
  operators.insert(operators.end(),
                   {&pyramid_roi_align_operator(), &half_pyramid_roi_align_operator(),
                    &proposal_nms_operator(), &detection_nms_operator()});
  for (const OrtCustomOp* op : operators) {
    if (OrtStatus* failure = api.CustomOpDomain_Add(domain, op)) {
      api.ReleaseCustomOpDomain(domain);
      throw_failure(api, failure);
    }
  }
  return domain;
}

OrtCustomOpDomain* find_domain(const OrtApi& api) {
  Domains& all = domains();
  const std::lock_guard lock(all.mutex);
  OrtCustomOpDomain*& domain = all.of_api[&api];
  if (domain == nullptr) {
    domain = make_domain(api);
  }
  return domain;
}

}  // namespace

bool have_cuda_operators() noexcept {
  return kHaveCudaOperators;
}

OrtStatus* register_ops(const OrtApi* api, OrtSessionOptions* options) noexcept {
  return catch_all(*api, "cn2", [&] {
    throw_failure(*api, api->AddCustomOpDomain(options, find_domain(*api)));
  });
}

}  // namespace cn2
