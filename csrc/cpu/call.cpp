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
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

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

// Memory up to this size is kept between calls: mapping fresh pages costs more than a small
// problem.
constexpr int64_t kKept = int64_t(16) << 20;

class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { free(); }
  void* at_least(int64_t bytes) {
    if (bytes > size_) {
      free();
      const int64_t size = (bytes + 4095) / 4096 * 4096;
      memory_ = std::aligned_alloc(64, static_cast<size_t>(size));
      if (memory_ == nullptr) throw std::bad_alloc();
      size_ = size;
    }
    return memory_;
  }
  void trim() {
    if (size_ > kKept) free();
  }
  void swap(Memory& other) { std::swap(memory_, other.memory_), std::swap(size_, other.size_); }

 private:
  void free() {
    std::free(memory_);
    memory_ = nullptr, size_ = 0;
  }

  void* memory_ = nullptr;
  int64_t size_ = 0;
};

// This thread's memory: of its jobs, and of its calls.
thread_local Memory of_jobs, of_calls;

// How this thread rounds: with kFlush, results below the least normal number, and on arm64 operands
// too, count as 0. A product with one of them takes x86 a hundred times as long, and the weights of
// a sharp softmax are full of them.
#if defined(__x86_64__)
constexpr uint64_t kFlush = _MM_FLUSH_ZERO_ON;
uint64_t rounding() { return _mm_getcsr(); }
void set_rounding(uint64_t mode) { _mm_setcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
constexpr uint64_t kFlush = uint64_t(1) << 24;  // FPCR.FZ
uint64_t rounding() {
  uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
void set_rounding(uint64_t mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#endif

class Rounding {
 public:
  explicit Rounding(uint64_t mode) { set_rounding(mode); }
  Rounding(const Rounding&) = delete;
  Rounding& operator=(const Rounding&) = delete;
  ~Rounding() { set_rounding(before_); }

 private:
  const uint64_t before_ = rounding();
};

// While it lives, this thread has other memory.
class Aside {
 public:
  Aside() { swap(); }
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;
  ~Aside() { swap(); }

 private:
  void swap() { jobs_.swap(of_jobs), calls_.swap(of_calls); }

  Memory jobs_, calls_;
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
  explicit Jobs(uint64_t mode) : mode_(mode) {}

  // Calls f(context, k) for k in [begin, end), on one of the threads.
  void run(int64_t begin, int64_t end, void (*f)(void*, int64_t), void* context) {
    const Rounding here(rounding() | mode_);
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
    of_jobs.trim();
  }

  void rethrow() const {
    if (thrown_) std::rethrow_exception(thrown_);
  }

  // Only the calling thread checks for signals, every kPause. Handlers may call operators.
  bool poll() {
    bool asked = false;
    if (!ended_.load(std::memory_order_relaxed) && pthread_equal(pthread_self(), caller_)) {
      const Clock::time_point now = Clock::now();
      if (now - asked_at < kPause) return false;
      asked_at = now;
      if (const auto ask = signals.load()) {
        const Aside aside;
        const Rounding as_the_caller(callers_);
        asked = true;
        if (ask()) ended_ = true;
      }
    }
    if (ended_.load(std::memory_order_relaxed))
      throw std::runtime_error("interrupted: a signal handler ended this call");
    return asked;
  }

  static thread_local Jobs* of_this_thread;
  // when this thread has last checked for signals; calls of short jobs are many
  static thread_local Clock::time_point asked_at;

 private:
  const pthread_t caller_ = pthread_self();
  const uint64_t mode_, callers_ = rounding();
  std::atomic<bool> ended_{false};
  std::mutex mutex_;
  std::exception_ptr thrown_;
};

thread_local Jobs* Jobs::of_this_thread = nullptr;
thread_local Clock::time_point Jobs::asked_at{};

void run(uint64_t mode, int64_t n, void (*f)(void*, int64_t), void* context) {
  Jobs jobs(mode);
  if (n == 1) {
    jobs.run(0, 1, f, context);
  } else {
    torch::stable::parallel_for(
        0, n, 1, [&](int64_t begin, int64_t end) { jobs.run(begin, end, f, context); });
  }
  jobs.rethrow();
}

}  // namespace

const Engine& engine(int64_t level) {
  STD_TORCH_CHECK(level >= -1 && level < int64_t(engines().size()), "isa: got ", level,
                  ", expected an instruction set of this CPU");
  return *engines()[static_cast<size_t>(std::max<int64_t>(level, 0))];
}

int threads() { return forked ? 1 : static_cast<int>(torch::stable::get_num_threads()); }

void run_parallel(int64_t n, void (*f)(void*, int64_t), void* context) { run(0, n, f, context); }

void run_gradients(int64_t n, void (*f)(void*, int64_t), void* context) {
  run(kFlush, n, f, context);
}

bool poll() { return Jobs::of_this_thread && Jobs::of_this_thread->poll(); }

void* scratch(int64_t bytes) { return of_jobs.at_least(bytes); }

Held::Held(int64_t bytes) : memory(of_calls.at_least(bytes)) {}
Held::~Held() { of_calls.trim(); }

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
