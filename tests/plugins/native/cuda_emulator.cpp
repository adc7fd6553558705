#include "cuda_emulator.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace cn2 {
alignas(128) unsigned char cn2_block_memory[emulator::kMostShared];
}

namespace emulator {
namespace {

constexpr unsigned kWarpSize = 32;
constexpr unsigned kMostThreads = 1024;
constexpr size_t kStack = 256 * 1024;
constexpr size_t kMostLaunches = 64;  // that are remembered

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct Fiber {
  jmp_buf resume;
  void* stack = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
  bool started = false;
  State state = State::kDone;
  uint3 index;
};

struct Warp {
  Lanes lanes[2];  // in turns: a lane may be at the next exchange before another has read this one
  unsigned turn = 0;
  unsigned arrived = 0;
};

struct Machine {
  std::vector<Fiber> fibers{kMostThreads};
  std::vector<Warp> warps{kMostThreads / kWarpSize};
  jmp_buf scheduler;
  void* scheduler_fake_stack = nullptr;
  const void* scheduler_stack = nullptr;
  size_t scheduler_stack_size = 0;
  Fiber* current = nullptr;
  const std::function<void()>* kernel = nullptr;
  uint64_t seed = 0;
  std::mt19937_64 random;
  bool dry_run = false;
  std::vector<cudaLaunchConfig_t> launches;
};

Machine& machine() {
  static Machine* one = new Machine;  // never destroyed
  return *one;
}

void before_switch([[maybe_unused]] void** keep, [[maybe_unused]] const void* stack,
                   [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(keep, stack, size);
#endif
}

void after_switch([[maybe_unused]] void* kept, [[maybe_unused]] const void** stack,
                  [[maybe_unused]] size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(kept, stack, size);
#endif
}

// From a fiber back to the scheduler.
void leave(State state) {
  Machine& m = machine();
  Fiber& fiber = *m.current;
  fiber.state = state;
  if (_setjmp(fiber.resume) == 0) {
    before_switch(&fiber.fake_stack, m.scheduler_stack, m.scheduler_stack_size);
    _longjmp(m.scheduler, 1);
  }
  after_switch(fiber.fake_stack, nullptr, nullptr);
}

void fiber_main() {
  Machine& m = machine();
  after_switch(nullptr, &m.scheduler_stack, &m.scheduler_stack_size);
  for (;;) {
    (*m.kernel)();
    leave(State::kDone);
  }
}

void start(Fiber& fiber) {
  if (fiber.stack == nullptr) {
    fiber.stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fiber.stack == MAP_FAILED) {
      std::perror("cuda_emulator: no memory for a stack");
      std::abort();
    }
  }
  static ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack;
  context.uc_stack.ss_size = kStack;
  context.uc_link = nullptr;
  makecontext(&context, fiber_main, 0);
  fiber.started = true;
  setcontext(&context);
}

// From the scheduler into a fiber, until it waits or is done.
void resume(Fiber& fiber) {
  Machine& m = machine();
  m.current = &fiber;
  threadIdx = fiber.index;
  if (_setjmp(m.scheduler) == 0) {
    before_switch(&m.scheduler_fake_stack, fiber.stack, kStack);
    if (fiber.started) {
      _longjmp(fiber.resume, 1);
    }
    start(fiber);
  }
  after_switch(m.scheduler_fake_stack, nullptr, nullptr);
}

uint3 thread_index(unsigned thread) {
  return {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
}

void reset_block(unsigned threads) {
  Machine& m = machine();
  for (unsigned i = 0; i < threads; ++i) {
    m.fibers[i].state = State::kReady;
    m.fibers[i].index = thread_index(i);
  }
  for (Warp& warp : m.warps) {
    warp.arrived = 0;
  }
}

template <typename Item>
void shuffle_order(std::vector<Item>& order) {
  if (machine().seed != 0) {
    std::shuffle(order.begin(), order.end(), machine().random);
  }
}

// Let threads that can run do so, of the warps that are chosen; whether one could.
bool run_ready(const std::vector<unsigned>& order, uint64_t warps) {
  bool any = false;
  for (const unsigned thread : order) {
    Fiber& fiber = machine().fibers[thread];
    if (fiber.state == State::kReady && (warps >> (thread / kWarpSize) & 1u) != 0) {
      resume(fiber);
      any = true;
    }
  }
  return any;
}

// Until none can; with a seed some warps get ahead of others.
void run_all(const std::vector<unsigned>& order) {
  for (bool any = true; any;) {
    const uint64_t some = machine().seed != 0 ? machine().random() : ~uint64_t{0};
    any = run_ready(order, some) || run_ready(order, ~uint64_t{0});
  }
}

size_t count_state(unsigned threads, State state) {
  const auto begin = machine().fibers.begin();
  return static_cast<size_t>(
      std::count_if(begin, begin + threads, [state](const Fiber& f) { return f.state == state; }));
}

// Fibers that wait for ever are given up: their stacks hold nothing that must be destroyed.
cudaError_t give_up(const char* what, unsigned threads) {
  std::fprintf(stderr, "cuda_emulator: %s\n", what);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = machine().fibers[i];
    fiber.started = fiber.started && fiber.state == State::kDone;
  }
  return cudaErrorLaunchFailure;
}

cudaError_t run_block(std::vector<unsigned>& order) {
  const auto threads = static_cast<unsigned>(order.size());
  reset_block(threads);
  shuffle_order(order);
  for (;;) {
    run_all(order);
    const size_t done = count_state(threads, State::kDone);
    if (done == threads) {
      return cudaSuccess;
    }
    if (count_state(threads, State::kAtBlockBarrier) != threads) {
      return give_up("a barrier that not all threads reach", threads);
    }
    for (unsigned i = 0; i < threads; ++i) {
      machine().fibers[i].state = State::kReady;
    }
    shuffle_order(order);
  }
}

void prepare_shared(size_t bytes) {
  unsigned char* memory = cn2::cn2_block_memory;
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(memory, kMostShared);
#endif
  std::memset(memory, kPattern, kMostShared);
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(memory + bytes, kMostShared - bytes);
#else
  (void)bytes;
#endif
}

bool shared_is_whole([[maybe_unused]] size_t bytes) {
#if !defined(__SANITIZE_ADDRESS__)
  const unsigned char* memory = cn2::cn2_block_memory;
  return std::all_of(memory + bytes, memory + kMostShared,
                     [](unsigned char byte) { return byte == kPattern; });
#else
  return true;
#endif
}

bool is_possible(const cudaLaunchConfig_t& config) {
  const dim3& grid = config.gridDim;
  const dim3& block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  return grid.x >= 1 && grid.x <= 0x7fffffff && grid.y >= 1 && grid.y <= 65535 && grid.z >= 1 &&
         grid.z <= 65535 && threads >= 1 && threads <= kMostThreads && threads % kWarpSize == 0 &&
         config.dynamicSmemBytes <= kMostShared;
}

cudaError_t run_blocks(const cudaLaunchConfig_t& config, const std::function<void()>& kernel) {
  machine().kernel = &kernel;
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  std::vector<uint64_t> blocks(uint64_t{gridDim.x} * gridDim.y * gridDim.z);
  std::iota(blocks.begin(), blocks.end(), 0);
  shuffle_order(blocks);
  std::vector<unsigned> order(size_t{blockDim.x} * blockDim.y * blockDim.z);
  std::iota(order.begin(), order.end(), 0);
  cudaError_t error = cudaSuccess;
  for (size_t i = 0; i < blocks.size() && error == cudaSuccess; ++i) {
    const uint64_t block = blocks[i];
    blockIdx = {static_cast<unsigned>(block % gridDim.x),
                static_cast<unsigned>(block / gridDim.x % gridDim.y),
                static_cast<unsigned>(block / gridDim.x / gridDim.y)};
    prepare_shared(config.dynamicSmemBytes);
    error = run_block(order);
    if (error == cudaSuccess && !shared_is_whole(config.dynamicSmemBytes)) {
      std::fprintf(stderr, "cuda_emulator: written past the block's memory\n");
      error = cudaErrorLaunchFailure;
    }
  }
  return error;
}

}  // namespace

void set_seed(uint64_t seed) {
  machine().seed = seed;
  machine().random.seed(seed);
}

void set_dry_run(bool dry_run) {
  machine().dry_run = dry_run;
}

bool is_dry_run() {
  return machine().dry_run;
}

const std::vector<cudaLaunchConfig_t>& launches() {
  return machine().launches;
}

void forget_launches() {
  machine().launches.clear();
}

void wait_for_block() {
  leave(State::kAtBlockBarrier);
}

unsigned lane() {
  const auto thread = static_cast<unsigned>(machine().current - machine().fibers.data());
  return thread % kWarpSize;
}

Lanes exchange(uint64_t value, unsigned mask) {
  Machine& m = machine();
  if (mask != ~0u) {
    std::fprintf(stderr, "cuda_emulator: expected all lanes of a warp, got mask %x\n", mask);
    std::abort();
  }
  const auto thread = static_cast<size_t>(m.current - m.fibers.data());
  Warp& warp = m.warps[thread / kWarpSize];
  const unsigned turn = warp.turn;
  warp.lanes[turn].values[thread % kWarpSize] = value;
  if (++warp.arrived < kWarpSize) {
    leave(State::kAtWarpBarrier);
  } else {
    warp.arrived = 0;
    warp.turn = 1 - turn;
    const size_t first = thread / kWarpSize * kWarpSize;
    for (size_t i = first; i < first + kWarpSize; ++i) {
      m.fibers[i].state = State::kReady;
    }
  }
  return warp.lanes[turn];
}

cudaError_t run(const cudaLaunchConfig_t& config, const std::function<void()>& kernel) {
  if (!is_possible(config)) {
    return cudaErrorInvalidConfiguration;
  }
  if (machine().launches.size() < kMostLaunches) {
    machine().launches.push_back(config);
  }
  return machine().dry_run ? cudaSuccess : run_blocks(config, kernel);
}

}  // namespace emulator
