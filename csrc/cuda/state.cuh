// The accumulators per tile row and per tile column while a block walks over its tiles, and how the
// lanes and warps that hold parts of a row or column combine them.
//
// Accumulators of rows are in shared memory until a row of tiles is done; those of columns are in
// this block's slice of device memory. Each position belongs to one thread, so no sum depends on
// timing.
#pragma once

#include "pairs.cuh"
#include "power.cuh"

namespace contrastloss::cuda {

// Stores an index as a number, exactly, whatever the width of the number.
__device__ __forceinline__ float as_number(int index, float) {
  float number;
  memcpy(&number, &index, sizeof number);
  return number;
}
__device__ __forceinline__ double as_number(int index, double) { return index; }
__device__ __forceinline__ int as_index(float number) {
  int index;
  memcpy(&index, &number, sizeof index);
  return index;
}
__device__ __forceinline__ int as_index(double number) { return static_cast<int>(number); }

// A statistic before it is complete: up to three numbers, whose meaning depends on the kind.
//
//   LSE      top, sum          sum_j exp(z_j) = sum exp(top)
//   EXPECT   top, sum, moment  sum_j exp(z_j) s_j = moment exp(top)
//   SUM      total
//   MAX      value, index
template <class T>
struct State {
  T first, second, third;

  __device__ __forceinline__ static State of_lse(T top) { return {top, T(0), T(0)}; }
  __device__ __forceinline__ static State of_sum(T total) { return {total, T(0), T(0)}; }
  __device__ __forceinline__ static State of_max(T value, int index) {
    return {value, as_number(index, T()), T(0)};
  }

  __device__ __forceinline__ T& top() { return first; }
  __device__ __forceinline__ T& sum() { return second; }
  __device__ __forceinline__ T& moment() { return third; }
  __device__ __forceinline__ const T& top() const { return first; }
  __device__ __forceinline__ const T& sum() const { return second; }
  __device__ __forceinline__ const T& moment() const { return third; }

  __device__ __forceinline__ T& total() { return first; }
  __device__ __forceinline__ const T& total() const { return first; }

  __device__ __forceinline__ T& value() { return first; }
  __device__ __forceinline__ const T& value() const { return first; }
  __device__ __forceinline__ int index() const { return as_index(second); }
  __device__ __forceinline__ void set_max(T value, int index) {
    first = value, second = as_number(index, T());
  }
};

template <class T>
__device__ __forceinline__ State<T> empty_state(int formula) {
  if (formula >= kSum) return State<T>::of_sum(T(0));
  if (formula == kMax) return State<T>::of_max(T(-INFINITY), -1);
  return State<T>::of_lse(T(-INFINITY));
}

// Keeps the larger value, with the smaller index if both are equal. If either is NaN, the result is
// NaN with index -1.
template <class T>
__device__ __forceinline__ void take_larger(T& value, int& index, T other, int other_index) {
  const bool odd = value != value || other != other;
  const bool take =
      other > value || (other == value && other_index >= 0 && (index < 0 || other_index < index));
  if (odd) {
    value = value + other, index = -1;
  } else if (take) {
    value = other, index = other_index;
  }
}

template <class T>
__device__ State<T> merged(int formula, State<T> u, const State<T>& v) {
  if (formula >= kSum) {
    u.total() += v.total();
  } else if (formula == kMax) {
    T value = u.value();
    int index = u.index();
    take_larger(value, index, v.value(), v.index());
    u.set_max(value, index);
  } else {
    const T top = v.top() > u.top() ? v.top() : u.top(), shift = LogSum<T>::shift(top);
    const T old = Power<T>::of(u.top(), shift), now = Power<T>::of(v.top(), shift);
    u.sum() = u.sum() * old + v.sum() * now;
    u.moment() = u.moment() * old + v.moment() * now;
    u.top() = top;
  }
  return u;
}

// The exponential of a pair's logit, without its top; and its fast form.
template <bool PLAIN, class T>
__device__ __forceinline__ T power(const View<T>& view, T s, T w, T top) {
  return Power<T>::of(logit<PLAIN>(view, s, w), top);
}
template <bool PLAIN, class T>
__device__ __forceinline__ T fast_power(const View<T>& view, T s, T w, T shift) {
  if (PLAIN) return Power<T>::fast(s, view.theta * Power<T>::kRate, shift);
  return Power<T>::fast(logit<false>(view, s, w), Power<T>::kRate, shift);
}

template <class T>
struct Components {
  T* at;
  int64_t stride;  // between components

  __device__ State<T> load(int formula) const {
    const int n = components(formula);
    return {at[0], n > 1 ? at[stride] : T(0), n > 2 ? at[2 * stride] : T(0)};
  }
  __device__ void store(int formula, const State<T>& s) const {
    const int n = components(formula);
    at[0] = s.first;
    if (n > 1) at[stride] = s.second;
    if (n > 2) at[2 * stride] = s.third;
  }
  __device__ void add(int formula, const State<T>& s) const {
    store(formula, merged(formula, load(formula), s));
  }
};

// The larger number, or NaN if either is.
template <class T>
__device__ __forceinline__ T larger(T u, T v) {
  return v > u || v != v ? v : u;
}

// Combines the lanes that hold the same row (AXIS 0) or the same column (AXIS 1).
template <int AXIS, class T, int N, class F>
__device__ __forceinline__ void across_lanes(T (&v)[N], const F& f) {
  constexpr int kFirst = AXIS == 0 ? 1 : 4, kEnd = AXIS == 0 ? 4 : 32;
#pragma unroll
  for (int step = kFirst; step < kEnd; step *= 2)
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] = f(v[k], __shfl_xor_sync(0xffffffffu, v[k], step));
}

template <int AXIS, class T, int N>
__device__ __forceinline__ void sum_lanes(T (&v)[N]) {
  across_lanes<AXIS>(v, [](T u, T w) { return u + w; });
}

template <class T, int FN>
class Accumulators {
 public:
  static constexpr int kParts = 3 * (kWarpCols * kTileRows + kWarpRows * kTileCols<FN>);

  // Selects this block's slices: each component has one slice of rows per batch item and
  // blockIdx.y, and one slice of columns per batch item and blockIdx.x.
  __device__ Accumulators(const Plan<T>& plan, T* shared, T* rows, T* cols)
      : shared_(shared),
        rows_(rows + (int64_t(blockIdx.z) * gridDim.y + blockIdx.y) * plan.m),
        cols_(cols + (int64_t(blockIdx.z) * gridDim.x + blockIdx.x) * plan.n),
        row_stride_(int64_t(gridDim.z) * gridDim.y * plan.m),
        col_stride_(int64_t(gridDim.z) * gridDim.x * plan.n) {}

  // The states of a tile row (shared memory), and of a column and a row (device memory).
  __device__ Components<T> tile_row(int part, int k) const {
    return {shared_ + kParts + part * kTileRows + k, kTileRows};
  }
  __device__ Components<T> column(int part, int j) const {
    return {cols_ + part * col_stride_ + j, col_stride_};
  }
  __device__ Components<T> row(int part, int i) const {
    return {rows_ + part * row_stride_ + i, row_stride_};
  }

  // Adds the results of a tile, v[r] or v[c], which are equal in all lanes that share the row or
  // column.
  template <int FORMULA, int AXIS, int N>
  __device__ void put(const Lane& lane, int part, const State<T> (&v)[N], int j, int j_end) {
    constexpr int kWarps = AXIS == 0 ? kWarpCols : kWarpRows;
    constexpr int kLength = AXIS == 0 ? kTileRows : kTileCols<FN>;
    T* parts = shared_ + (AXIS == 0 ? 0 : 3 * kWarpCols * kTileRows);
    __syncthreads();  // the previous values have been read
    const bool first = AXIS == 0 ? lane.t == 0 : lane.g == 0;
    const int warp = AXIS == 0 ? lane.warp_col : lane.warp_row;
    if (first) {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const int at = AXIS == 0 ? lane.row(k) : lane.template col<FN>(k);
        Components<T>{parts + warp * kLength + at, kWarps * kLength}.store(FORMULA, v[k]);
      }
    }
    __syncthreads();
    const int k = threadIdx.x;
    if (k >= kLength || (AXIS == 1 && j + k >= j_end)) return;
    State<T> found = empty_state<T>(FORMULA);
#pragma unroll
    for (int w = 0; w < kWarps; ++w)
      found = merged(FORMULA, found,
                     Components<T>{parts + w * kLength + k, kWarps * kLength}.load(FORMULA));
    (AXIS == 0 ? tile_row(part, k) : column(part, j + k)).add(FORMULA, found);
  }

  // The largest number of the block's threads.
  __device__ T largest(T v) const {
    for (int step = 16; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(0xffffffffu, v, step);
      v = other > v ? other : v;
    }
    __syncthreads();  // the previous values have been read
    if (threadIdx.x % 32 == 0) shared_[threadIdx.x / 32] = v;
    __syncthreads();
    for (int w = 0; w < kThreads / 32; ++w) v = shared_[w] > v ? shared_[w] : v;
    return v;
  }

  // Adds up the lanes' shares of each row or column.
  template <int AXIS, int N>
  __device__ __forceinline__ void put_sums(const Lane& lane, int part, T (&v)[N], int j,
                                           int j_end) {
    sum_lanes<AXIS>(v);
    State<T> found[N];
#pragma unroll
    for (int k = 0; k < N; ++k) found[k] = State<T>::of_sum(v[k]);
    put<kSum, AXIS>(lane, part, found, j, j_end);
  }

 private:
  T* shared_;
  T *rows_, *cols_;
  const int64_t row_stride_, col_stride_;
};

}  // namespace contrastloss::cuda
