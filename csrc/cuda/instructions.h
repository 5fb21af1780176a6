// All inline assembly: matrix instructions of sm_80, copies that bypass registers, and powers of
// two. The host emulation (tests/cuda_host) replaces this header.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace contrastloss::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Loads four 8 x 8 matrices of 16-bit numbers. Lane k passes the address of row k % 8 of matrix k /
// 8 and receives, for row lane / 4 of each matrix, the two numbers at 2 (lane % 4).
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}

// c += a b, 16 x 16 times 16 x 8, with fp32 sums.
#define CL_MMA(ELEMENT, NAME)                                                                    \
  __device__ __forceinline__ void multiply_add(float& c0, float& c1, float& c2, float& c3,       \
                                               const uint32_t (&a)[4], uint32_t b0, uint32_t b1, \
                                               const ELEMENT*) {                                 \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME                          \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"          \
                 : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)                                        \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                \
  }
CL_MMA(__nv_bfloat16, "bf16")
CL_MMA(__half, "f16")
#undef CL_MMA

// The nearest number of TF32, which has the range of fp32 and a mantissa of 10 bits.
__device__ __forceinline__ uint32_t as_tf32(float v) {
  uint32_t word;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(v));
  return word;
}

// c += a b, 16 x 8 times 8 x 8, of TF32.
__device__ __forceinline__ void multiply_add(float& c0, float& c1, float& c2, float& c3,
                                             const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                             const float*) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c0), "+f"(c1), "+f"(c2), "+f"(c3)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Copies 16 bytes from device to shared memory, both aligned, or writes zeros if `some` is false.
// For this thread, the bytes have arrived after copies_arrive.
__device__ __forceinline__ void copy_16(void* to, const void* from, bool some) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(some ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void copies_arrive() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// 2^t, with a relative error of 2^-22; 0 below 2^-126.
__device__ __forceinline__ float power_of_two(float t) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(t));
  return power;
}

}  // namespace contrastloss::cuda
