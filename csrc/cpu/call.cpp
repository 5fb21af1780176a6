// Engines, threads and scratch memory of the operators on CPU tensors.
#include "call.h"

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <stdexcept>

#include <pthread.h>

namespace contrastloss::cpu {
namespace {

// Best first.
#if defined(__x86_64__)
const Engine* const kEngines[] = {&amx_engine, &avx512_bf16_engine, &avx512_engine, &avx2_engine,
                                  &generic_engine};
#elif defined(__aarch64__)
const Engine* const kEngines[] = {&neon_bf16_engine, &neon_engine, &generic_engine};
#endif

// Those that this CPU has.
const std::vector<const Engine*>& engines() {
  static const std::vector<const Engine*> found = [] {
    std::vector<const Engine*> all(std::begin(kEngines), std::end(kEngines));
    all.erase(std::remove_if(all.begin(), all.end(), [](auto* e) { return !e->supported(); }),
              all.end());
    return all;
  }();
  return found;
}

// Scratch memory up to this size is kept between calls: mapping fresh pages costs more than a small
// problem.
constexpr int64_t kKept = int64_t(16) << 20;

class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
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

// OpenMP's worker threads do not survive a fork; a child that waits for them waits forever.
bool forked = false;
const int fork_noted = pthread_atfork(nullptr, nullptr, [] { forked = true; });

// Returns whether a signal handler wants the operator to end. If it is null, signals are not
// checked.
std::atomic<int (*)()> signals{nullptr};

using Clock = std::chrono::steady_clock;
constexpr auto kPause = std::chrono::milliseconds(100);

// Jobs that run concurrently. An exception may not leave a worker thread, so it is stored; it also
// ends the other jobs.
class Jobs {
 public:
  // Calls f(context, k) for k in [begin, end), on one of the threads.
  void run(int64_t begin, int64_t end, void (*f)(void*, int64_t), void* context) {
    Jobs* const outer = of_this_thread;
    of_this_thread = this;
    try {
      for (int64_t k = begin; k < end; ++k) poll(), f(context, k);
    } catch (...) {
      const std::lock_guard<std::mutex> hold(mutex_);
      if (!thrown_) thrown_ = std::current_exception();
      ended_ = true;
    }
    of_this_thread = outer;
  }

  void rethrow() const {
    if (thrown_) std::rethrow_exception(thrown_);
  }

  // Only the calling thread checks for signals, every kPause.
  void poll() {
    if (!ended_.load(std::memory_order_relaxed) && pthread_equal(pthread_self(), caller_)) {
      const Clock::time_point now = Clock::now();
      if (now - asked_ < kPause) return;
      asked_ = now;
      const auto ask = signals.load();
      if (ask && ask()) ended_ = true;
    }
    if (ended_.load(std::memory_order_relaxed))
      throw std::runtime_error("interrupted: a signal handler ended this call");
  }

  static thread_local Jobs* of_this_thread;

 private:
  const pthread_t caller_ = pthread_self();
  Clock::time_point asked_ = Clock::now();
  std::atomic<bool> ended_{false};
  std::mutex mutex_;
  std::exception_ptr thrown_;
};

thread_local Jobs* Jobs::of_this_thread = nullptr;

}  // namespace

const Engine& engine(int64_t level) {
  STD_TORCH_CHECK(level >= -1 && level < int64_t(engines().size()), "isa: got ", level,
                  ", expected an instruction set of this CPU");
  return *engines()[static_cast<size_t>(std::max<int64_t>(level, 0))];
}

int threads() { return forked ? 1 : static_cast<int>(torch::stable::get_num_threads()); }

void run_parallel(int64_t n, void (*f)(void*, int64_t), void* context) {
  Jobs jobs;
  if (n == 1) {
    jobs.run(0, 1, f, context);
  } else {
    torch::stable::parallel_for(
        0, n, 1, [&](int64_t begin, int64_t end) { jobs.run(begin, end, f, context); });
  }
  jobs.rethrow();
}

void poll() {
  if (Jobs::of_this_thread) Jobs::of_this_thread->poll();
}

void* scratch(int64_t bytes) {
  static thread_local Scratch of_this_thread;
  return of_this_thread.at_least(bytes);
}

void* held(int64_t bytes) {
  static thread_local Scratch of_this_thread;
  return of_this_thread.at_least(bytes);
}

}  // namespace contrastloss::cpu

// Called by contrastloss/backends/cpu.py. This library does not link Python.
extern "C" __attribute__((visibility("default"))) void contrastloss_cpu_signals(int (*ask)()) {
  contrastloss::cpu::signals = ask;
}

// The name of an instruction set of this CPU, by its number in the operators' argument isa; null
// beyond the last.
extern "C" __attribute__((visibility("default"))) const char* contrastloss_cpu_isa(int level) {
  const auto& all = contrastloss::cpu::engines();
  return level < 0 || level >= int(all.size()) ? nullptr : all[static_cast<size_t>(level)]->name;
}
