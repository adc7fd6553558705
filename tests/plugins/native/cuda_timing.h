// Time launches on a GPU: in a CUDA graph, so that what is timed is the kernels, and a capture that fails
// (because something allocates or waits) shows. Emulated kernels are not timed.
#pragma once

#include <cuda_runtime.h>

#include <vector>

namespace cn2::testing {

inline constexpr int kLaunchesOfGraph = 10;
inline constexpr int kWarmUps = 5;

struct Timing {
  int repeats = 0;                  // 0: a launch is just made
  std::vector<float> microseconds;  // of one launch, for each repeat
};

inline Timing& timing() {
  static Timing one;
  return one;
}

#if defined(CN2_CUDA_EMULATOR)

template <typename Launch>
cudaError_t time_in_graph(const Launch& launch) {
  return launch(nullptr);
}

#else

// The first error of some.
class Errors {
 public:
  bool keep(cudaError_t error) {
    error_ = error_ == cudaSuccess ? error : error_;
    return error_ == cudaSuccess;
  }
  cudaError_t get() const { return error_; }

 private:
  cudaError_t error_ = cudaSuccess;
};

template <typename Launch>
cudaError_t capture(const Launch& launch, cudaStream_t stream, cudaGraphExec_t* executable) {
  Errors errors;
  cudaGraph_t graph = nullptr;
  errors.keep(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kLaunchesOfGraph; ++i) {
    errors.keep(launch(stream));
  }
  errors.keep(cudaStreamEndCapture(stream, &graph));
  if (errors.get() == cudaSuccess) {
    errors.keep(cudaGraphInstantiate(executable, graph, 0));
  }
  if (graph != nullptr) {
    cudaGraphDestroy(graph);
  }
  return errors.get();
}

inline cudaError_t replay(cudaGraphExec_t executable, cudaStream_t stream) {
  Errors errors;
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  errors.keep(cudaEventCreate(&begin));
  errors.keep(cudaEventCreate(&end));
  timing().microseconds.clear();
  for (int i = 0; i < kWarmUps + timing().repeats && errors.get() == cudaSuccess; ++i) {
    float milliseconds = 0;
    errors.keep(cudaEventRecord(begin, stream));
    errors.keep(cudaGraphLaunch(executable, stream));
    errors.keep(cudaEventRecord(end, stream));
    errors.keep(cudaEventSynchronize(end));
    errors.keep(cudaEventElapsedTime(&milliseconds, begin, end));
    if (i >= kWarmUps) {
      timing().microseconds.push_back(1000 * milliseconds / kLaunchesOfGraph);
    }
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return errors.get();
}

template <typename Launch>
cudaError_t time_in_graph(const Launch& launch) {
  Errors errors;
  cudaStream_t stream = nullptr;
  cudaGraphExec_t executable = nullptr;
  errors.keep(cudaDeviceSynchronize());
  if (errors.keep(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)) &&
      errors.keep(capture(launch, stream, &executable))) {
    errors.keep(replay(executable, stream));
    cudaGraphExecDestroy(executable);
  }
  if (stream != nullptr) {
    cudaStreamDestroy(stream);
  }
  return errors.get();
}

#endif

}  // namespace cn2::testing
