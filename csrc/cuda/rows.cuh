// Kernels with one warp per row: norms and bounds before the tiles, gradients of x and y after the
// products.
#pragma once

#include "state.cuh"

namespace contrastloss::cuda {

__device__ __forceinline__ double warp_sum(double total) {
  for (int step = 16; step > 0; step /= 2) total += __shfl_xor_sync(0xffffffffu, total, step);
  return total;
}

// Calls f for this lane's share of a row, 16 bytes at a time if `wide`.
template <class E, class F>
__device__ __forceinline__ void each_of_row(const E* row, int d, bool wide, const F& f) {
  constexpr int kMany = kChunk / static_cast<int>(sizeof(E));
  const int lane = threadIdx.x % 32;
  if (wide) {
    for (int k = lane * kMany; k < d; k += 32 * kMany) {
      const Chunk<E> chunk = *reinterpret_cast<const Chunk<E>*>(row + k);
#pragma unroll
      for (int e = 0; e < kMany; ++e) f(chunk.value[e]);
    }
  } else {
    for (int k = lane; k < d; k += 32) f(row[k]);
  }
}

// The norm of a row, computed by a warp. Squares of floats fit in double. Squares of doubles may
// overflow or underflow, so such a row is first divided by its largest element.
template <class T, class E>
__device__ __forceinline__ double row_norm(const E* row, int d, bool wide) {
  double top = 1;
  if constexpr (sizeof(T) == 8) {
    top = 0;
    each_of_row(row, d, wide, [&](E v) { top = larger(top, ::std::fabs(v)); });
    for (int step = 16; step > 0; step /= 2)
      top = larger(top, __shfl_xor_sync(0xffffffffu, top, step));
    if (top == 0) return 0;
  }
  double part = 0;
  each_of_row(row, d, wide, [&](E element) {
    double v = static_cast<T>(element);
    if (sizeof(T) == 8) v /= top;
    part += v * v;
  });
  return top * ::std::sqrt(warp_sum(part));
}

template <class E, class T>
__global__ void __launch_bounds__(kThreads) sides_kernel(const __grid_constant__ Sides<T> f) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = kThreads / 32;
  T* tops = reinterpret_cast<T*>(shared_memory);  // (4, warps)
  for (int s = 0; s < f.sides; ++s) {
    const Side<T>& side = f.side[s];
    T top = 0, bias = 0;
    for (int64_t i = int64_t(blockIdx.x) * warps + warp; i < side.count;
         i += int64_t(gridDim.x) * warps) {
      const double norm = row_norm<T>(static_cast<const E*>(side.rows) + i * f.d, f.d, f.wide);
      const T factor = side.factor ? side.factor[i] : T(1);
      T length = static_cast<T>(norm);
      if (side.inverse) {
        const T inverse = norm > 0    ? static_cast<T>(1 / (norm > 1e-12 ? norm : 1e-12))
                          : norm == 0 ? T(0)
                                      : static_cast<T>(norm);
        length = norm == norm ? T(1) : length;
        if (lane == 0) side.inverse[i] = inverse, side.product[i] = factor * inverse;
      }
      top = larger(top, ::std::fabs(factor) * length);
      if (side.bias) bias = larger(bias, ::std::fabs(side.bias[i]));
    }
    if (lane == 0) tops[s * warps + warp] = top, tops[(2 + s) * warps + warp] = bias;
  }
  __syncthreads();
  if (threadIdx.x < 4) {
    const int k = threadIdx.x, s = k % 2 < f.sides ? k : k - 1;  // one side: y is x
    T most = 0;
    for (int w = 0; w < warps; ++w) most = larger(most, tops[s * warps + w]);
    f.bounds[threadIdx.x * gridDim.x + blockIdx.x] = most;
  }
  const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (f.finished && thread == 0) *f.finished = 0;
  for (int k = 0; k < 2; ++k)
    for (int64_t at = thread; at < f.cleared[k]; at += int64_t(gridDim.x) * kThreads)
      f.clear[k][at] = 0;
}

// N numbers that are read or written at once.
template <class E, int N>
struct alignas(N * sizeof(E) < kChunk ? N * sizeof(E) : kChunk) Few {
  E value[N];
  static __device__ __forceinline__ const Few& at(const E* p) {
    return *reinterpret_cast<const Few*>(p);
  }
};

// The gradient of a row, N numbers of each lane at a time.
template <int N, class E, class O, class T>
__device__ __forceinline__ void finish_row(const Finish<T>& f, int64_t i) {
  const int first = N * (threadIdx.x % 32), step = N * 32;
  const T *sums = f.sums + i * f.d, *more = f.more ? f.more + i * f.d : nullptr;
  const E* x = static_cast<const E*>(f.x) + i * f.d;
  O* to = static_cast<O*>(f.to) + i * f.width;
  const auto summed = [&](int k) {
    Few<T, N> sum = Few<T, N>::at(sums + k);
    if (more) {
      const Few<T, N> other = Few<T, N>::at(more + k);
#pragma unroll
      for (int e = 0; e < N; ++e) sum.value[e] += other.value[e];
    }
    return sum;
  };
  const T inverse = f.inverse ? f.inverse[i] : T(0);
  const T rate = f.gain ? T(1) / *f.gain : T(1);  // exact: gains are powers of two
  T radial = 0;
  if (f.inverse && inverse < T(1e12)) {
    double part = 0;
    for (int k = first; k < f.d; k += step) {
      const Few<T, N> sum = summed(k);
      const Few<E, N> own = Few<E, N>::at(x + k);
#pragma unroll
      for (int e = 0; e < N; ++e)
        part +=
            static_cast<double>(sum.value[e]) * static_cast<double>(static_cast<T>(own.value[e]));
    }
    radial = static_cast<T>(warp_sum(part)) * inverse;
  }
  for (int k = first; k < f.width; k += step) {
    const Few<T, N> sum = summed(k);
    const Few<E, N> own = Few<E, N>::at(x + k);
    Few<O, N> result;
#pragma unroll
    for (int e = 0; e < N; ++e)
      result.value[e] =
          static_cast<O>((sum.value[e] - static_cast<T>(own.value[e]) * inverse * radial) * rate);
    *reinterpret_cast<Few<O, N>*>(to + k) = result;
  }
}

// Adds the sums, divides by the gain and, with cosines, removes the radial part, g - u <u, g> with
// u = x r, unless the norm is clamped. The square of r may overflow.
template <class E, class O, class T>
__global__ void __launch_bounds__(kThreads) finish_kernel(const __grid_constant__ Finish<T> f) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (i >= f.rows) return;
  f.wide ? finish_row<4, E, O>(f, i) : finish_row<1, E, O>(f, i);
}

// Adds up all slices in order.
template <class T>
__global__ void __launch_bounds__(kThreads) totals_kernel(const __grid_constant__ Totals<T> f) {
  const int k = blockIdx.x * kThreads + threadIdx.x;
  const int64_t z = blockIdx.z;
  for (int t = 0; t < f.count; ++t) {
    const auto& total = f.total[t];
    if (k >= (total.column ? f.n : f.m)) continue;
    T sum = 0;
    for (int64_t s = 0; total.at.row >= 0 && s < f.down; ++s)
      sum += f.rows[((int64_t(total.at.row) * f.batch + z) * f.down + s) * f.m + k];
    for (int64_t s = 0; total.at.col >= 0 && s < f.across; ++s)
      sum += f.cols[((int64_t(total.at.col) * f.batch + z) * f.across + s) * f.n + k];
    total.to[z * (total.column ? f.n : f.m) + k] = sum;
  }
}

}  // namespace contrastloss::cuda
