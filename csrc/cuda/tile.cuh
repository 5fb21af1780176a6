// A tile of products <x_i, y_j>: how it is loaded from device memory through shared memory into
// registers, and which thread holds which of its numbers.
//
// A tile has 4 x 2 warps. A warp has 32 rows and 4 FN columns, of which each lane holds 4 x FN
// numbers. This is the result layout of the sm_80 matrix instruction. fp32 and fp64 use the same
// layout without that instruction.
#pragma once

#include <cuda/instructions.h>
#include <cuda_runtime.h>

#include <cstring>

#include "plan.h"

// NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result): offsets in a stage fit in int
namespace contrastloss::cuda {

extern __shared__ __align__(128) unsigned char shared_memory[];

constexpr int kWarpRows = 4, kWarpCols = 2, kThreads = 32 * kWarpRows * kWarpCols;
constexpr int kTileRows = 32 * kWarpRows;
// rows of a tile per lane
constexpr int kLaneRows = 4;

constexpr int kChunk = 16;                     // bytes per copy
constexpr int kDepthBytes = 128;               // bytes of a row in a stage
constexpr int kStride = kDepthBytes + kChunk;  // avoids bank conflicts between eight rows

template <int FN>
constexpr int kTileCols = 4 * FN * kWarpCols;

template <int FN>
constexpr int kStageBytes = (kTileRows + kTileCols<FN>)*kStride;

struct Lane {
  int warp_row, warp_col, g, t;
  __device__ Lane() {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    warp_row = warp % kWarpRows, warp_col = warp / kWarpRows;
    g = lane / 4, t = lane % 4;
  }
  // within the tile
  __device__ __forceinline__ int row(int r) const {
    return warp_row * 32 + (r >> 1) * 16 + (r & 1) * 8 + g;
  }
  template <int FN>
  __device__ __forceinline__ int col(int c) const {
    return warp_col * 4 * FN + (c >> 1) * 8 + 2 * t + (c & 1);
  }
};

template <class E>
constexpr bool kHalf = sizeof(E) == 2;

template <class E>
struct alignas(kChunk) Chunk {
  E value[kChunk / sizeof(E)];
};

// Loads one side of a stage: rows [first, end) of a (rows, d) matrix, columns from k0 on, with
// zeros beyond the end. Rows begin at multiples of 16 bytes.
template <class E, int ROWS>
__device__ void fetch(unsigned char* stage, const E* matrix, int64_t origin, int first, int end,
                      int d, int k0) {
  constexpr int kPerRow = kDepthBytes / kChunk, kElements = kChunk / sizeof(E);
  constexpr int kRows = kThreads / kPerRow;  // that all threads copy at a time
  static_assert(ROWS % kRows == 0, "threads share the rows evenly");
  const int row = threadIdx.x / kPerRow, at = k0 + threadIdx.x % kPerRow * kElements;
  const int there = at < d ? end - first - row : 0;  // how many rows after this one, and it
  const E* from = matrix + (origin + first + row) * d + at;
  unsigned char* to = stage + row * kStride + threadIdx.x % kPerRow * kChunk;
#pragma unroll
  for (int r = 0; r < ROWS; r += kRows, from += int64_t(kRows) * d)
    copy_16(to + r * kStride, r < there ? from : matrix, r < there);
}

// Numbers that matrix instructions multiply, as a fragment holds them: words and, for products with
// twice the bits of TF32, what the words lack.
template <bool SPLIT>
struct Fragment {
  uint32_t word[4], rest[SPLIT ? 4 : 1];

  // Rounds fp32 numbers to TF32.
  __device__ __forceinline__ void round() {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      float v, rounded;
      memcpy(&v, &word[k], sizeof v);
      word[k] = as_tf32(v);
      memcpy(&rounded, &word[k], sizeof v);
      if constexpr (SPLIT) rest[k] = as_tf32(v - rounded);
    }
  }
};

// Adds the products over the depth of one stage to acc, by matrix instructions. Each step takes 32
// bytes of every row.
template <class E, bool SPLIT, int FN>
__device__ __forceinline__ void multiply_fragments(const unsigned char* stage, const Lane& lane,
                                                   float (&acc)[kLaneRows][FN]) {
  const unsigned char *xs = stage, *ys = stage + kTileRows * kStride;
  const int id = threadIdx.x % 32;
  const unsigned char* left = xs + (lane.warp_row * 32 + id % 16) * kStride + id / 16 * 16;
  const unsigned char* right =
      ys + (lane.warp_col * 4 * FN + id % 8 + id / 16 * 8) * kStride + id / 8 % 2 * 16;
#pragma unroll
  for (int k = 0; k < kDepthBytes; k += 32) {
    Fragment<SPLIT> a[2], b;
    load_matrices(a[0].word, left + k);
    load_matrices(a[1].word, left + 16 * kStride + k);
    if constexpr (!kHalf<E>) a[0].round(), a[1].round();
#pragma unroll
    for (int c = 0; c < FN; c += 4) {
      load_matrices(b.word, right + c * 4 * kStride + k);
      if constexpr (!kHalf<E>) b.round();
      const auto add = [&](int r, int h, const uint32_t (&u)[4], const uint32_t (&v)[4]) {
        const int column = c + 2 * h;
        multiply_add(acc[r][column], acc[r][column + 1], acc[r + 1][column], acc[r + 1][column + 1],
                     u, v[2 * h], v[2 * h + 1], static_cast<const E*>(nullptr));
      };
#pragma unroll
      for (int r = 0; r < kLaneRows; r += 2)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          if constexpr (SPLIT) {
            add(r, h, a[r / 2].rest, b.word);
            add(r, h, a[r / 2].word, b.rest);
          }
          add(r, h, a[r / 2].word, b.word);
        }
    }
  }
}

// The same, number by number.
template <class E, class T, int FN>
__device__ __forceinline__ void multiply_numbers(const unsigned char* stage, const Lane& lane,
                                                 T (&acc)[kLaneRows][FN]) {
  const unsigned char *xs = stage, *ys = stage + kTileRows * kStride;
#pragma unroll 2
  for (int k = 0; k < kDepthBytes; k += kChunk) {
    Chunk<E> x[kLaneRows];
#pragma unroll
    for (int r = 0; r < kLaneRows; ++r)
      x[r] = *reinterpret_cast<const Chunk<E>*>(xs + lane.row(r) * kStride + k);
#pragma unroll
    for (int c = 0; c < FN; ++c) {
      const Chunk<E> y =
          *reinterpret_cast<const Chunk<E>*>(ys + lane.template col<FN>(c) * kStride + k);
#pragma unroll
      for (int r = 0; r < kLaneRows; ++r)
#pragma unroll
        for (int e = 0; e < kChunk / static_cast<int>(sizeof(E)); ++e)
          acc[r][c] += x[r].value[e] * y.value[e];
    }
  }
}

// CL_TF32X3: fp32 products by three products of TF32, a prototype.
#if defined(CL_TF32X3)
constexpr bool kThreeProducts = true;
#else
constexpr bool kThreeProducts = false;
#endif

template <class E, class T, int FN>
__device__ __forceinline__ void multiply(const unsigned char* stage, const Lane& lane, bool tf32,
                                         T (&acc)[kLaneRows][FN]) {
  if constexpr (kHalf<E>) {
    multiply_fragments<E, false>(stage, lane, acc);
  } else if constexpr (sizeof(E) == 8) {
    multiply_numbers<E>(stage, lane, acc);
  } else if (tf32) {
    multiply_fragments<E, false>(stage, lane, acc);
  } else if constexpr (kThreeProducts) {
    multiply_fragments<E, true>(stage, lane, acc);
  } else {
    multiply_numbers<E>(stage, lane, acc);
  }
}

// Walks over this block's tiles of rows [i0, i1) and columns [j0, j1). While one stage is
// multiplied, the next one is loaded, also across the borders of tiles.
template <class E, class T, int FN>
class Walk {
 public:
  __device__ Walk(const Plan<T>& plan, unsigned char* stages, int i0, int i1, int j0, int j1)
      : plan_(plan),
        stages_(stages),
        i0_(i0),
        i1_(i1),
        j0_(j0),
        j1_(j1),
        steps_((plan.d + kDepth - 1) / kDepth),
        i(i0 + static_cast<int>(blockIdx.x) * kTileRows),
        j(first(i)) {
    next_i_ = i, next_j_ = j;
    settle(next_i_, next_j_);
    i = next_i_, j = next_j_;
    if (!done()) load();
  }

  __device__ bool done() const { return i >= i1_; }

  // Computes the products of the tile at (i, j). The stages then belong to the next tile, but i and
  // j change only in `advance`.
  __device__ __forceinline__ void products(const Lane& lane, T (&acc)[kLaneRows][FN]) {
#pragma unroll
    for (int r = 0; r < kLaneRows; ++r)
#pragma unroll
      for (int c = 0; c < FN; ++c) acc[r][c] = T(0);
    for (int step = 0; step < steps_; ++step) {
      copies_arrive();
      __syncthreads();  // all threads have this stage and have finished the one that is loaded next
      const unsigned char* stage = stages_ + buffer_ * kStageBytes<FN>;
      buffer_ ^= 1;
      if (++next_step_ == steps_) {
        next_step_ = 0;
        move(next_i_, next_j_);
      }
      if (next_i_ < i1_) load();
      multiply<E, T, FN>(stage, lane, plan_.tf32, acc);
    }
  }

  __device__ bool last_of_row() const { return next_i_ != i; }
  __device__ void advance() { i = next_i_, j = next_j_; }

 private:
  static constexpr int kDepth = kDepthBytes / sizeof(E);

  // In a symmetric problem, tiles to the left of the diagonal are skipped.
  __device__ int first(int row) const {
    const int stride = static_cast<int>(gridDim.y) * kTileCols<FN>;
    int column = j0_ + static_cast<int>(blockIdx.y) * kTileCols<FN>;
    if (plan_.symmetric)
      while (column + kTileCols<FN> - 1 <= row) column += stride;
    return column;
  }
  __device__ void settle(int& row, int& column) const {
    while (row < i1_ && column >= j1_) {
      row += static_cast<int>(gridDim.x) * kTileRows;
      column = first(row);
    }
  }
  __device__ void move(int& row, int& column) const {
    column += static_cast<int>(gridDim.y) * kTileCols<FN>;
    settle(row, column);
  }

  __device__ void load() {
    unsigned char* stage = stages_ + buffer_ * kStageBytes<FN>;
    const int k0 = next_step_ * kDepth;
    const int64_t item = blockIdx.z;
    fetch<E, kTileRows>(stage, static_cast<const E*>(plan_.x), item * plan_.m, next_i_, i1_,
                        plan_.d, k0);
    fetch<E, kTileCols<FN>>(stage + kTileRows * kStride, static_cast<const E*>(plan_.y),
                            item * plan_.n, next_j_, j1_, plan_.d, k0);
  }

  const Plan<T>& plan_;
  unsigned char* stages_;
  const int i0_, i1_, j0_, j1_, steps_;
  int next_i_, next_j_, next_step_ = 0, buffer_ = 0;

 public:
  int i, j;  // the first row and column of the current tile
};

}  // namespace contrastloss::cuda
// NOLINTEND(bugprone-implicit-widening-of-multiplication-result)
