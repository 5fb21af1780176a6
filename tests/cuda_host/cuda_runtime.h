// CUDA on the CPU, for tests: the parts of the language and the runtime that csrc/cuda uses.
//
// The threads of a block are fibers on one operating system thread. They switch at barriers and
// where lanes of a warp exchange values; blocks run one after another. For ThreadSanitizer each
// fiber is a separate thread, ordered only by barriers, shuffles and atomics. So it finds missing
// barriers, and blocks that access the same memory, whatever order they run in.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __forceinline__ inline __attribute__((__always_inline__))
#define __noinline__  // gcc uses this name for its own attribute; inlining does not matter here
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidValue };
inline cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
inline cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  void* attrs = nullptr;
  unsigned numAttrs = 0;
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_host {

void synchronize_threads();
// Whether any thread of the block says so.
bool any_thread(bool says);
// Each lane of the caller's warp stores a value; after the call all values can be read.
const void* exchange(const void* value, size_t bytes);
// Asynchronous copies: done at copies_arrive, not when they are issued.
void copy_later(void* to, const void* from, size_t bytes);
void copies_arrive();
// Tell the sanitizer that an atomic at `place` orders memory accesses.
void before_atomic(void* place);
void after_atomic(void* place);

cudaError_t run(const cudaLaunchConfig_t& config, const std::function<void()>& kernel);

constexpr size_t kSlot = 32;  // bytes of a lane's value

// The values that the lanes of a warp have stored.
template <class T>
class Values {
 public:
  explicit Values(const T& own)
      : slots_(static_cast<const unsigned char*>(exchange(&own, sizeof own))) {
    static_assert(sizeof(T) <= kSlot, "a lane's value");
  }
  T operator[](unsigned lane) const {
    T found;
    std::memcpy(&found, slots_ + lane * kSlot, sizeof found);
    return found;
  }

 private:
  const unsigned char* slots_;
};

}  // namespace cuda_host

inline void __syncthreads() { cuda_host::synchronize_threads(); }
inline int __syncthreads_or(int predicate) { return cuda_host::any_thread(predicate != 0); }
inline void __syncwarp(unsigned = ~0u) { cuda_host::Values<int>(0); }
inline void __threadfence() {}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return cuda_host::Values<T>(value)[(threadIdx.x % 32) ^ static_cast<unsigned>(mask)];
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
  return cuda_host::Values<T>(value)[static_cast<unsigned>(lane)];
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  const cuda_host::Values<int> all(predicate);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) votes |= (all[lane] ? 1u : 0u) << lane;
  return votes;
}
template <class T>
T atomicAdd(T* place, T value) {
  cuda_host::before_atomic(place);
  const T old = *place;
  *place = old + value;
  cuda_host::after_atomic(place);
  return old;
}
inline int __popc(unsigned word) { return __builtin_popcount(word); }
// separately rounded operations: this build does not use fused multiply-adds
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

// ---- the runtime --------------------------------------------------------------------------------

inline const char* cudaGetErrorString(cudaError_t) { return "invalid value"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
// few multiprocessors, so that small problems have several tiles per block
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  return *value = 3, cudaSuccess;
}
template <class F>
cudaError_t cudaFuncSetAttribute(F, cudaFuncAttribute, int bytes) {
  return bytes <= 227 << 10 ? cudaSuccess : cudaErrorInvalidValue;  // the limit of sm_90
}
template <class F>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, F, int, size_t) {
  return *blocks = 2, cudaSuccess;
}
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  static_assert((sizeof(Parameters) + ... + 0) <= 4096, "kernel parameters beyond 4 KB");
  return cuda_host::run(*config, [&] { kernel(arguments...); });
}
