// Gumbel noise of pairs, identical to the last bit on every backend. It repeats `gumbel` of
// contrastloss/backends/reference/noise.py operation by operation. The compiler may not fuse
// operations written as rounding intrinsics.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

namespace contrastloss::cuda {

__device__ __forceinline__ float times(float u, float v) { return __fmul_rn(u, v); }
__device__ __forceinline__ float plus(float u, float v) { return __fadd_rn(u, v); }
__device__ __forceinline__ double times(double u, double v) { return __dmul_rn(u, v); }
__device__ __forceinline__ double plus(double u, double v) { return __dadd_rn(u, v); }

struct Noise {
  // The noise of a pair, from the two keys of its row and of its column.
  __device__ static float of(uint32_t row, uint32_t row_more, uint32_t col, uint32_t col_more) {
    return gumbel(mixed(mixed(row + col) ^ (row_more + col_more)));
  }

 private:
  __device__ __forceinline__ static uint32_t mixed(uint32_t v) {
    v = (v ^ (v >> 16)) * 0x21f0aaadu;
    v = (v ^ (v >> 15)) * 0xd35a2d97u;
    return v ^ (v >> 15);
  }

  // -log E, E = -log(1 - w), w = (h + 1/2) / 2^32
  __device__ __forceinline__ static float gumbel(uint32_t h) {
    const bool low = h < 0x80000000u;
    const float w = unit_interval(low ? h : ~h);
    const float exponential = low ? artanh2(__fdiv_rn(w, plus(2.0f, -w))) : -log(w);
    return -log(exponential);
  }

  // (h + 1/2) / 2^32 for h < 2^31
  __device__ __forceinline__ static float unit_interval(uint32_t h) {
    const float high = static_cast<float>(h >> 16), rest = static_cast<float>(h & 0xffffu);
    return times(plus(plus(times(high, 65536.0f), rest), 0.5f), 1.0f / 4294967296.0f);
  }

  // log((1 + z) / (1 - z)) for |z| <= 1/3
  __device__ __forceinline__ static float artanh2(float z) {
    const float z2 = times(z, z);
    float p = 1.0f / 13;
#pragma unroll
    for (int k = 11; k >= 1; k -= 2) p = plus(times(p, z2), 1.0f / static_cast<float>(k));
    return times(2.0f, times(z, p));
  }

  // for a positive normal number x = 2^e m, m in [sqrt(1/2), sqrt(2))
  __device__ __forceinline__ static float log(float x) {
    int bits;
    memcpy(&bits, &x, sizeof bits);
    const int e = (bits - 0x3f3504f3) >> 23;
    bits -= e * (1 << 23);
    float m;
    memcpy(&m, &bits, sizeof m);
    return plus(times(static_cast<float>(e), 0.693147182f),
                artanh2(__fdiv_rn(plus(m, -1.0f), plus(m, 1.0f))));
  }
};

}  // namespace contrastloss::cuda
