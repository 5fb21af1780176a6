// Blocks of fibers: see cuda_runtime.h. Compiled without ThreadSanitizer; this file tells it how
// accesses are ordered.
#include <cuda_runtime.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(CUDA_HOST_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace contrastloss::cuda {
constexpr size_t kSharedBytes = 256 << 10;
alignas(4096) unsigned char shared_memory[kSharedBytes];
}  // namespace contrastloss::cuda

// Saves the registers that a call must preserve on the stack, stores the stack pointer at *from,
// and continues on the stack `to`.
extern "C" void cuda_host_switch(void** from, void* to);
__asm__(
    ".text\n.globl cuda_host_switch\n.hidden cuda_host_switch\ncuda_host_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n");

dim3 threadIdx, blockIdx, blockDim, gridDim;

// For tests of what the host does: how many kernels have been launched, and whether launches do
// nothing.
extern "C" {
__attribute__((visibility("default"))) int64_t cuda_host_launches = 0;
__attribute__((visibility("default"))) bool cuda_host_idle = false;
}

namespace cuda_host {

namespace {

constexpr size_t kStack = 128 << 10;

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
};

struct Barrier {
  unsigned arrived = 0, generation = 0;
  char tag[2];  // addresses for the sanitizer, for even and odd generations
};

struct Warp {
  Barrier barrier;
  unsigned turn = 0;
  alignas(32) unsigned char slots[2][32 * kSlot];
};

struct Fiber {
  void* stack = nullptr;  // stack pointer at which it continues
  unsigned char* memory = nullptr;
  size_t bytes = kStack;
  bool done = false;
  std::vector<Copy> copies;
  void* sanitizer = nullptr;
};

std::vector<Fiber> fibers;
std::vector<Warp> warps;
Barrier everyone;
unsigned current, live, idle;
Fiber scheduler;
const std::function<void()>* kernel;

void go_to(Fiber& from, Fiber& to) {
#if defined(CUDA_HOST_TSAN)
  __tsan_switch_to_fiber(to.sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(from.done ? nullptr : &fake, to.memory, to.bytes);
#endif
  cuda_host_switch(&from.stack, to.stack);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

// Switches to the next fiber that is not done, or to the scheduler if all are done.
void yield() {
  Fiber& from = fibers[current];
  if (live == 0) return go_to(from, scheduler);
  if (++idle > 4 * fibers.size()) {
    std::fprintf(stderr, "cuda_host: deadlock among the threads of a block\n");
    std::abort();
  }
  do current = (current + 1) % fibers.size();
  while (fibers[current].done);
  threadIdx = dim3(current);
  if (&fibers[current] != &from) go_to(from, fibers[current]);
}

void wait(Barrier& barrier, unsigned expected) {
  const unsigned generation = barrier.generation;
#if defined(CUDA_HOST_TSAN)
  __tsan_release(&barrier.tag[generation % 2]);
#endif
  if (++barrier.arrived >= expected) {
    barrier.arrived = 0, ++barrier.generation, idle = 0;
  } else {
    while (barrier.generation == generation) yield();
  }
#if defined(CUDA_HOST_TSAN)
  __tsan_acquire(&barrier.tag[generation % 2]);
#endif
}

void start() {
#if defined(__SANITIZE_ADDRESS__)
  const void* memory;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &memory, &bytes);
  // the first fiber is started by the scheduler, whose stack is needed for the way back
  if (current == 0)
    scheduler.memory = static_cast<unsigned char*>(const_cast<void*>(memory)),
    scheduler.bytes = bytes;
#endif
  (*kernel)();
#if defined(CUDA_HOST_TSAN)
  __tsan_release(&everyone);
#endif
  fibers[current].done = true;
  --live, idle = 0;
  if (live && everyone.arrived >= live) everyone.arrived = 0, ++everyone.generation;
  yield();
  std::abort();  // never reached
}

unsigned char* map(void* at, size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0);
  return static_cast<unsigned char*>(mmap(at, bytes, PROT_READ | PROT_WRITE, flags, -1, 0));
}

void run_block(size_t shared) {
  using contrastloss::cuda::kSharedBytes;
  using contrastloss::cuda::shared_memory;
#if defined(CUDA_HOST_TSAN)  // fresh memory: blocks that use it in turn do not share it
  map(shared_memory, kSharedBytes);
  for (Fiber& fiber : fibers) map(fiber.memory, kStack);
#endif
  std::memset(shared_memory, 0xff, shared);  // NaN
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(shared_memory + shared, kSharedBytes - shared);
#endif
  live = static_cast<unsigned>(fibers.size()), idle = 0, current = 0;
  everyone.arrived = 0;
  warps.assign((fibers.size() + 31) / 32, Warp());
#if defined(__SANITIZE_ADDRESS__)  // the last fiber there did not return from all of its calls
  for (Fiber& fiber : fibers) ASAN_UNPOISON_MEMORY_REGION(fiber.memory, kStack);
#endif
  for (Fiber& fiber : fibers) {
    // as if `start` had been called with six saved registers, on a stack aligned for calls
    void** top = reinterpret_cast<void**>(fiber.memory + kStack) - 1;
    *--top = reinterpret_cast<void*>(&start);
    for (int k = 0; k < 6; ++k) *--top = nullptr;
    fiber.stack = top, fiber.done = false;
#if defined(CUDA_HOST_TSAN)
    fiber.sanitizer = __tsan_create_fiber(0);
#endif
  }
  threadIdx = dim3(0);
  go_to(scheduler, fibers[0]);
#if defined(CUDA_HOST_TSAN)
  for (Fiber& fiber : fibers) __tsan_destroy_fiber(fiber.sanitizer);
#endif
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(shared_memory + shared, kSharedBytes - shared);
#endif
}

}  // namespace

void synchronize_threads() { wait(everyone, live); }

bool any_thread(bool says) {
  static bool votes[1024];
  votes[current] = says;
  synchronize_threads();
  bool any = false;
  for (unsigned k = 0; k < live; ++k) any = any || votes[k];
  synchronize_threads();  // before the next votes
  return any;
}

const void* exchange(const void* value, size_t bytes) {
  Warp& warp = warps[current / 32];
  // two buffers, so that a lane one exchange ahead does not disturb lanes that still read
  unsigned char* slots = warp.slots[warp.barrier.generation % 2];
  std::memcpy(slots + current % 32 * kSlot, value, bytes);
  wait(warp.barrier, 32);
  return slots;
}

void copy_later(void* to, const void* from, size_t bytes) {
  fibers[current].copies.push_back({to, from, bytes});
}

void copies_arrive() {
  for (const Copy& copy : fibers[current].copies) std::memcpy(copy.to, copy.from, copy.bytes);
  fibers[current].copies.clear();
}

void before_atomic([[maybe_unused]] void* place) {
#if defined(CUDA_HOST_TSAN)
  __tsan_acquire(place);
#endif
}
void after_atomic([[maybe_unused]] void* place) {
#if defined(CUDA_HOST_TSAN)
  __tsan_release(place);
#endif
}

cudaError_t run(const cudaLaunchConfig_t& config, const std::function<void()>& function) {
  ++cuda_host_launches;
  if (cuda_host_idle) return cudaSuccess;
  const size_t threads = config.blockDim.x * config.blockDim.y * config.blockDim.z;
  if (threads == 0 || threads > 1024 || config.blockDim.y * config.blockDim.z != 1 ||
      config.dynamicSmemBytes > 227 << 10)
    return cudaErrorInvalidValue;
  kernel = &function;
  for (size_t k = threads; k < fibers.size(); ++k) {
#if defined(__SANITIZE_ADDRESS__)  // for the next user of these addresses
    ASAN_UNPOISON_MEMORY_REGION(fibers[k].memory, kStack);
#endif
    munmap(fibers[k].memory, kStack);
  }
  const size_t there = fibers.size();
  fibers.resize(threads);
  for (size_t k = there; k < threads; ++k) fibers[k].memory = map(nullptr, kStack);
#if defined(CUDA_HOST_TSAN)
  scheduler.sanitizer = __tsan_get_current_fiber();
#endif
  blockDim = config.blockDim, gridDim = config.gridDim;
  for (blockIdx.z = 0; blockIdx.z < gridDim.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) run_block(config.dynamicSmemBytes);
#if defined(CUDA_HOST_TSAN)
  __tsan_acquire(&everyone);
#endif
  return cudaSuccess;
}

}  // namespace cuda_host
