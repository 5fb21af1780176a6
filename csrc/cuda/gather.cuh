// The kernels for columns that each row chooses:
//
//   s_ik = scale a_i b_j <x_i, y_j> + beta_i + gamma_j,   j = index_ik
//   dx_i += h_ik y_j,   dy_j += h_ik x_i,   h_ik = scale a_i b_j g_ik.
//
// A team of lanes reads one vector. A warp has several teams, and each team has several loads in
// flight. One warp or block adds up each row or column, in an order that depends on sizes only; for
// columns, the entries are sorted first.
#pragma once

#include "gather.h"
#include "tile.cuh"

namespace contrastloss::cuda {

constexpr int kAtOnce = 4;  // vectors that a team loads at once
constexpr int kWarps = kThreads / 32;

template <class E>
constexpr int kPerLane = kChunk / sizeof(E);

template <class E>
struct Team {
  const int size, lane, number, count;
  const bool wide;

  __device__ Team(int size, bool wide)
      : size(size),
        lane(threadIdx.x % 32 % size),
        number(threadIdx.x % 32 / size),
        count(32 / size),
        wide(wide) {}

  __device__ int width() const { return size * kPerLane<E>; }
  // The position of this lane's element number e, among the elements from `start` on.
  __device__ int place(int start, int e) const {
    return start + (wide ? lane * kPerLane<E> + e : lane + e * size);
  }

  // Loads the lane's elements. They are zeros beyond the end of the vector and if `vector` is null.
  __device__ __forceinline__ Chunk<E> load(const E* vector, int start, int d) const {
    Chunk<E> found;
    if (wide) {
      const bool some = vector && place(start, 0) < d;
      const Words words =
          some ? *reinterpret_cast<const Words*>(vector + place(start, 0)) : Words{};
      memcpy(static_cast<void*>(found.value), &words, sizeof words);
    } else {
#pragma unroll
      for (int e = 0; e < kPerLane<E>; ++e)
        found.value[e] = vector && place(start, e) < d ? vector[place(start, e)] : E(0.0f);
    }
    return found;
  }

 private:
  struct alignas(kChunk) Words {  // read by one load, unlike an array of elements
    uint32_t word[kChunk / 4];
  };
};

template <class T>
__device__ __forceinline__ T at_or(const T* vector, int64_t at, T otherwise) {
  return vector ? vector[at] : otherwise;
}

// The column of an entry of a row, counted over the batch; -1: there is none.
template <class T>
__device__ __forceinline__ int64_t column_of(const GatherPlan<T>& f, int64_t row, int64_t entry) {
  const int64_t j = f.index[entry];
  return j >= 0 && j < f.n ? row / f.m * f.n + j : -1;
}

// The row of an entry; -1: there is no such entry. The sorted order comes from outside and may hold
// any number.
template <class T>
__device__ __forceinline__ int64_t row_of(const GatherPlan<T>& f, int64_t entry) {
  return entry >= 0 && entry < f.rows * f.k ? entry / f.k : -1;
}
template <class T>
__device__ __forceinline__ int64_t place_in_order(const GatherPlan<T>& f, int64_t start) {
  const int64_t entries = f.rows * f.k;
  return start < 0 ? 0 : start > entries ? entries : start;
}

// How many steps a row's entries take, if each of a warp's teams takes kAtOnce of them per step.
CL_HD int64_t gather_steps(int64_t k, int step) { return (k + step - 1) / step; }

// How many parts of a team's width a vector has.
CL_HD int64_t gather_parts(bool some, int d, int width) {
  return some && d > 0 ? (d - 1) / width + 1 : 1;
}

// Each warp takes entries of one row, kAtOnce per team.
template <class E, class T>
__global__ void __launch_bounds__(kThreads, 2)
    gather_scores_kernel(const __grid_constant__ GatherPlan<T> f, T* to) {
  const Team<E> team(f.team, f.wide);
  const int step = kAtOnce * team.count;
  const int64_t per_row = gather_steps(f.k, step);
  for (int64_t item = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32; item < f.rows * per_row;
       item += int64_t(gridDim.x) * kWarps) {
    const int64_t i = item / per_row, first = item % per_row * step + team.number;
    const E* x = static_cast<const E*>(f.x) + i * f.d;
    int64_t column[kAtOnce];
    const E* y[kAtOnce];
    T sum[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int64_t k = first + u * team.count;
      column[u] = k < f.k ? column_of(f, i, i * f.k + k) : -1;
      y[u] = column[u] < 0 ? nullptr : static_cast<const E*>(f.y) + column[u] * f.d;
      sum[u] = 0;
    }
    for (int start = 0; start < f.d; start += team.width()) {
      const Chunk<E> left = team.load(x, start, f.d);
      Chunk<E> right[kAtOnce];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) right[u] = team.load(y[u], start, f.d);
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u)
#pragma unroll
        for (int e = 0; e < kPerLane<E>; ++e)
          sum[u] += static_cast<T>(left.value[e]) * static_cast<T>(right[u].value[e]);
    }
    for (int lanes = team.size / 2; lanes > 0; lanes /= 2)
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) sum[u] += __shfl_xor_sync(0xffffffffu, sum[u], lanes);
    if (team.lane != 0) continue;
    const T left = (f.scale ? *f.scale : T(1)) * at_or(f.a, i, T(1)), beta = at_or(f.beta, i, T(0));
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int64_t k = first + u * team.count, j = column[u];
      if (k >= f.k) continue;
      T score = T(-INFINITY);
      if (j >= 0) score = sum[u] * (left * at_or(f.b, j, T(1))) + beta + at_or(f.gamma, j, T(0));
      to[i * f.k + k] = score;
    }
  }
}

// One lane's share of the sums of a row or column.
template <class E, class T>
struct GatherSum {
  T vector[kPerLane<E>], bias, dot;

  template <class F>
  __device__ void each(const F& f) {
#pragma unroll
    for (int e = 0; e < kPerLane<E>; ++e) f(vector[e], e);
    f(bias, kPerLane<E>), f(dot, kPerLane<E> + 1);
  }
  static constexpr int kNumbers = kPerLane<E> + 2;
};

// Adds up entries begin, begin + stride, ... before `end` of row or column `own`: the vector
// elements from `start` on, and the scalars.
template <class E, class T, bool COLUMN>
__device__ __forceinline__ void gather_add(const GatherPlan<T>& f, const GatherSums<T>& s,
                                           const Team<E>& team, int64_t own, int64_t begin,
                                           int64_t end, int64_t stride, int start,
                                           GatherSum<E, T>& sum) {
  const E* others = static_cast<const E*>(COLUMN ? f.x : f.y);
  const T* factors = COLUMN ? f.a : f.b;
  const T left = (f.scale ? *f.scale : T(1)) * at_or(COLUMN ? f.b : f.a, own, T(1));
  for (int64_t at = begin; at < end; at += kAtOnce * stride) {
    T h[kAtOnce];
    Chunk<E> vector[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const bool some = at + u * stride < end;
      const int64_t entry = !some ? 0 : COLUMN ? s.order[at + u * stride] : at + u * stride;
      const int64_t other = !some ? -1 : COLUMN ? row_of(f, entry) : column_of(f, own, entry);
      h[u] = 0;
      if (other >= 0) {
        const T grad = s.grad[entry], factor = at_or(factors, other, T(1));
        h[u] = grad * (left * factor);
        sum.bias += grad;
        if (s.dot) sum.dot += grad * factor * s.dots[entry];
      }
      const bool read = s.vector && other >= 0;
      vector[u] = team.load(read ? others + other * f.d : nullptr, start, f.d);
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u)
#pragma unroll
      for (int e = 0; e < kPerLane<E>; ++e)
        sum.vector[e] += h[u] * static_cast<T>(vector[u].value[e]);
  }
}

// A warp or a block computes team.width() elements of the sums of one row or column.
template <class E, class T, bool COLUMN>
__global__ void __launch_bounds__(kThreads, 2)
    gather_sums_kernel(const __grid_constant__ GatherPlan<T> f,
                       const __grid_constant__ GatherSums<T> s) {
  using Sum = GatherSum<E, T>;
  T* shared = reinterpret_cast<T*>(shared_memory);  // (kWarps, Sum::kNumbers, 32)
  const Team<E> team(f.team, f.wide);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, apart = f.block ? kWarps : 1;
  const int64_t parts = gather_parts(s.vector, f.d, team.width());
  const int64_t items = (COLUMN ? f.cols : f.rows) * parts, per_block = kWarps / apart;
  for (int64_t item = blockIdx.x * per_block + (f.block ? 0 : warp); item < items;
       item += gridDim.x * per_block) {
    const int64_t own = item / parts;
    const int start = static_cast<int>(item % parts) * team.width();
    const int64_t begin = COLUMN ? place_in_order(f, s.starts[own]) : own * f.k;
    const int64_t end = COLUMN ? place_in_order(f, s.starts[own + 1]) : begin + f.k;
    const int number = f.block ? warp * team.count + team.number : team.number;
    Sum sum{};
    gather_add<E, T, COLUMN>(f, s, team, own, begin + number, end, apart * team.count, start, sum);
    for (int lanes = team.size; lanes < 32; lanes *= 2)
      sum.each([&](T& v, int) { v += __shfl_xor_sync(0xffffffffu, v, lanes); });
    if (f.block) {
      sum.each([&](T& v, int e) { shared[(warp * Sum::kNumbers + e) * 32 + lane] = v; });
      __syncthreads();
      for (int w = 1; warp == 0 && w < kWarps; ++w)
        sum.each([&](T& v, int e) { v += shared[(w * Sum::kNumbers + e) * 32 + lane]; });
      __syncthreads();
    }
    if (team.number != 0 || (f.block && warp != 0)) continue;
    if (s.vector) {
#pragma unroll
      for (int e = 0; e < kPerLane<E>; ++e) {
        const int at = team.place(start, e);
        if (at >= f.d) continue;
        T& to = s.vector[own * f.d + at];
        to = s.add ? to + sum.vector[e] : sum.vector[e];
      }
    }
    if (team.lane != 0 || start != 0) continue;
    if (s.bias) s.bias[own] = sum.bias;
    if (s.dot) s.dot[own] = sum.dot;
  }
}

}  // namespace contrastloss::cuda
