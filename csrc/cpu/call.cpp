// Engines, threads and scratch: what every operator on CPU tensors runs on.
#include "call.h"

#include <cstdlib>
#include <new>

#include <pthread.h>

namespace contrastloss::cpu {
namespace {

const Engine* const kEngines[] = {&amx_engine, &avx512_engine, &avx2_engine, &generic_engine};

// Kept from call to call up to this size; mapping fresh pages costs more than small problems do.
constexpr int64_t kKept = int64_t(16) << 20;

class Scratch {
 public:
  ~Scratch() { std::free(memory_); }
  void* at_least(int64_t bytes) {
    if (bytes > size_ || size_ > kKept) {
      std::free(memory_);
      size_ = (bytes + 4095) / 4096 * 4096;
      memory_ = std::aligned_alloc(64, static_cast<size_t>(size_));
      if (memory_ == nullptr) size_ = 0, throw std::bad_alloc();
    }
    return memory_;
  }

 private:
  void* memory_ = nullptr;
  int64_t size_ = 0;
};

// OpenMP's workers do not survive a fork, and a child that waits for them waits for ever.
bool forked = false;
const int fork_noted = pthread_atfork(nullptr, nullptr, [] { forked = true; });

}  // namespace

const Engine& engine(int64_t level) {
  if (level >= 0) {
    STD_TORCH_CHECK(level < 4 && kEngines[level]->supported(), "isa: not supported here");
    return *kEngines[level];
  }
  for (const Engine* e : kEngines)
    if (e->supported()) return *e;
  return generic_engine;
}

int threads() { return forked ? 1 : static_cast<int>(torch::stable::get_num_threads()); }

void run_parallel(int64_t n, void (*f)(void*, int64_t), void* context) {
  if (n == 1) return f(context, 0);
  torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) f(context, k);
  });
}

void* scratch(int64_t bytes) {
  static thread_local Scratch of_this_thread;
  return of_this_thread.at_least(bytes);
}

}  // namespace contrastloss::cpu
