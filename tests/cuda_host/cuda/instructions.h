// Replaces csrc/cuda/instructions.h: the same functions, written after the PTX description of each
// instruction. The tests check which lane holds which numbers of a matrix.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace contrastloss::cuda {

inline void load_matrices(uint32_t (&to)[4], const void* row) {
  const unsigned lane = threadIdx.x % 32;
  const cuda_host::Values<const void*> rows(row);
  for (unsigned matrix = 0; matrix < 4; ++matrix)
    std::memcpy(&to[matrix], static_cast<const char*>(rows[8 * matrix + lane / 4]) + 4 * (lane % 4),
                4);
}

// A (16, 16): lane 4 g + t holds columns 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 of rows g and g + 8.
// B (16, 8): it holds rows 2 t, 2 t + 1, 2 t + 8 and 2 t + 9 of column g.
// C (16, 8): it holds columns 2 t and 2 t + 1 of rows g and g + 8.
template <class E>
void multiply_add(float& c0, float& c1, float& c2, float& c3, const uint32_t (&a)[4], uint32_t b0,
                  uint32_t b1, const E*) {
  struct Numbers {
    E a[4][2], b[2][2];
  };
  Numbers own;
  const uint32_t b[2] = {b0, b1};
  std::memcpy(static_cast<void*>(own.a), a, sizeof own.a);
  std::memcpy(static_cast<void*>(own.b), b, sizeof own.b);
  const cuda_host::Values<Numbers> all(own);
  const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float c[2][2] = {{c0, c1}, {c2, c3}};
  for (unsigned k = 0; k < 4; ++k) {
    const Numbers left = all[4 * g + k];
    for (unsigned column = 0; column < 2; ++column) {
      const Numbers right = all[4 * (2 * t + column) + k];
      for (unsigned row = 0; row < 2; ++row)
        for (unsigned half = 0; half < 2; ++half)
          for (unsigned e = 0; e < 2; ++e)
            c[row][column] += static_cast<float>(left.a[row + 2 * half][e]) *
                              static_cast<float>(right.b[half][e]);
    }
  }
  c0 = c[0][0], c1 = c[0][1], c2 = c[1][0], c3 = c[1][1];
}

// Rounds half away from zero.
inline uint32_t as_tf32(float v) {
  uint32_t word;
  std::memcpy(&word, &v, sizeof word);
  const bool finite = (word & 0x7f800000u) != 0x7f800000u;
  return finite ? (word + 0x1000u) & ~0x1fffu : word;
}

// A (16, 8): lane 4 g + t holds columns t and t + 4 of rows g and g + 8, rows first.
// B (8, 8): it holds rows t and t + 4 of column g.
// C as above. The instruction does not look at the last 13 bits.
inline void multiply_add(float& c0, float& c1, float& c2, float& c3, const uint32_t (&a)[4],
                         uint32_t b0, uint32_t b1, const float*) {
  struct Numbers {
    float a[4], b[2];
  };
  const auto number = [](uint32_t word) {
    word &= ~0x1fffu;
    float v;
    std::memcpy(&v, &word, sizeof v);
    return v;
  };
  const Numbers own{{number(a[0]), number(a[1]), number(a[2]), number(a[3])},
                    {number(b0), number(b1)}};
  const cuda_host::Values<Numbers> all(own);
  const unsigned lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float c[2][2] = {{c0, c1}, {c2, c3}};
  for (unsigned k = 0; k < 8; ++k) {
    const Numbers left = all[4 * g + k % 4];
    for (unsigned column = 0; column < 2; ++column)
      for (unsigned row = 0; row < 2; ++row)
        c[row][column] += left.a[row + k / 4 * 2] * all[4 * (2 * t + column) + k % 4].b[k / 4];
  }
  c0 = c[0][0], c1 = c[0][1], c2 = c[1][0], c3 = c[1][1];
}

inline void copy_16(void* to, const void* from, bool some) {
  static const unsigned char zeros[16] = {};
  cuda_host::copy_later(to, some ? from : zeros, 16);
}
inline void copies_arrive() { cuda_host::copies_arrive(); }

inline float power_of_two(float t) {
  const float power = std::exp2(t < -150.0f ? -150.0f : t);
  return std::fabs(power) < 0x1p-126f ? 0.0f : power;
}

}  // namespace contrastloss::cuda
