// The statistics of all pairs. Block (p, q) visits every gridDim.x-th row of tiles and every
// gridDim.y-th column of tiles. It writes partial statistics of rows to slice q and of columns to
// slice p. The slices are merged in order: by the last block in small problems, by a second kernel
// in large ones. No sum depends on timing.
//
// One exponential is enough for rows and columns if the scores are known to be small. With
//
//   |s_ij| <= B = |scale| max |a_i| |x_i| max |b_j| |y_j| + max |beta| + max |gamma|
//
// (Cauchy-Schwarz), exp(s - B) can neither overflow nor underflow. Otherwise the largest logit of a
// tile serves it, unless a row or column of the tile is far below; then each has its own shift.
#pragma once

#include "state.cuh"

namespace contrastloss::cuda {

// The largest range of logits, 2 B, for which one shift is enough.
template <class T>
constexpr T kRange = sizeof(T) == 8 ? T(400) : T(40);

// The threads of a block share the work. `scratch` is free before and after.
template <class T>
__device__ T bound(const Plan<T>& plan, unsigned char* scratch) {
  constexpr int kEach = kThreads / 4, kWarps = kEach / 32;
  T* tops = reinterpret_cast<T*>(scratch);  // (4, kWarps)
  const int warp = threadIdx.x / 32, k = threadIdx.x / kEach;
  T top = 0;
  for (int p = threadIdx.x % kEach; p < plan.bound_parts; p += kEach)
    top = larger(top, plan.bounds[k * plan.bound_parts + p]);
  for (int step = 16; step > 0; step /= 2)
    top = larger(top, __shfl_xor_sync(0xffffffffu, top, step));
  if (threadIdx.x % 32 == 0) tops[warp] = top;
  __syncthreads();
  T most[4];
  for (int c = 0; c < 4; ++c) {
    most[c] = 0;
    for (int w = 0; w < kWarps; ++w) most[c] = larger(most[c], tops[c * kWarps + w]);
  }
  __syncthreads();
  const T scale = plan.scale ? ::std::fabs(*plan.scale) : T(1);
  return scale * most[0] * most[1] * T(1.0001) + most[2] + most[3];
}

// Whether |theta| B can be the shift of all logits of a view.
template <class Fs, class T>
__device__ bool bounded(const Plan<T>& plan, const View<T>& view, T bound) {
  const Pairs& pairs = plan.pairs[view.group];
  return (!Fs::generic || (!paced(view) && pairs.term == pairs.terms_end)) &&
         2 * bound * ::std::fabs(view.theta) <= kRange<T>;
}

template <class E, class T, class Fs>
class Forward {
  static constexpr int FN = Fs::cols;
  static constexpr bool kGeneric = Fs::generic;

 public:
  __device__ Forward(const ForwardPlan<T>& plan, Tile<T, FN>& tile,
                     Accumulators<T, FN>& accumulators, T bound)
      : plan_(plan), tile_(tile), accumulators_(accumulators), bound_(bound) {}

  template <int FORMULA>
  __device__ __forceinline__ void operator()(const View<T>& view) const {
    const Cover cover = tile_.covered(view);
    if (cover == Cover::NONE) return;
    Seen seen;
    if (!tile_.template look<kGeneric>(view, cover, seen)) return;
    if constexpr (FORMULA >= kSum) {
      sums<FORMULA>(view, seen);
    } else if constexpr (FORMULA == kMax) {
      if (view.row_part >= 0) maxima<0>(view, seen);
      if (view.col_part >= 0) maxima<1>(view, seen);
    } else {
      const bool near = bounded<Fs>(plan_.plan, view, bound_);
      const bool whole =
          !kGeneric && cover == Cover::ALL && view.row_part >= 0 && view.col_part >= 0;
      if ((near || whole) && shared_shift<FORMULA>(view, seen, near)) return;
      if (view.row_part >= 0) own_shift<FORMULA, 0>(view, seen);
      if (view.col_part >= 0) own_shift<FORMULA, 1>(view, seen);
    }
  }

 private:
  using Seen = typename Tile<T, FN>::Seen;

  template <int AXIS>
  static constexpr int kCount = AXIS == 0 ? kLaneRows : FN;

  // One exponential for rows and columns. If the logits are not known to be near each other, their
  // top is that of the tile; returns false, for the whole block, if it is too large for the fast
  // form, or if the sum of a row or column is so small that terms of it may have vanished.
  template <int FORMULA>
  __device__ __forceinline__ bool shared_shift(const View<T>& view, const Seen& seen,
                                               bool near) const {
    const T top = near ? bound_ * ::std::fabs(view.theta) : tile_top(view, seen);
    if (!(::std::fabs(top) <= Power<T>::kLargest)) return false;
    const T shift = Power<T>::shift(top);
    State<T> row[kLaneRows] = {}, col[FN] = {};
    tile_.template each<kGeneric>(view, seen, [&](int r, int c, bool some, T s, T w) {
      const T e = some ? fast_power<!kGeneric>(view, s, w, shift) : T(0);
      row[r].sum() += e, col[c].sum() += e;
      if (FORMULA == kExpect && e != T(0)) row[r].moment() += e * s, col[c].moment() += e * s;
    });
    if (view.row_part >= 0) add_lanes<FORMULA, 0>(row);
    if (view.col_part >= 0) add_lanes<FORMULA, 1>(col);
    if (!kGeneric && !near) {
      bool vanished = false;
#pragma unroll
      for (int r = 0; r < kLaneRows; ++r) vanished = vanished || !(row[r].sum() >= kLeastSum);
#pragma unroll
      for (int c = 0; c < FN; ++c) vanished = vanished || !(col[c].sum() >= kLeastSum);
      if (__syncthreads_or(vanished)) return false;
    }
    relate(row, shift), relate(col, shift);
    if (view.row_part >= 0) put<FORMULA, 0>(view, row);
    if (view.col_part >= 0) put<FORMULA, 1>(view, col);
    return true;
  }

  // Terms below the range of fp32, 2^-126 each, do not change a sum of this size.
  static constexpr T kLeastSum = T(1) / (int64_t(1) << 60);

  __device__ __forceinline__ T tile_top(const View<T>& view, const Seen& seen) const {
    T most = -INFINITY;
    tile_.template each<kGeneric>(view, seen, [&](int, int, bool some, T s, T w) {
      const T z = logit<!kGeneric>(view, s, w);
      most = some && z > most ? z : most;
    });
    return accumulators_.largest(most);
  }

  // Sums of the fast form become states.
  template <int N>
  __device__ __forceinline__ static void relate(State<T> (&v)[N], T shift) {
    const T rest = Power<T>::rest(shift);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      v[k].top() = Power<T>::top(shift);
      v[k].sum() *= rest, v[k].moment() *= rest;
    }
  }

  template <int FORMULA, int AXIS, int N>
  __device__ __forceinline__ static void add_lanes(State<T> (&v)[N]) {
    T sum[N], moment[N];
#pragma unroll
    for (int k = 0; k < N; ++k) sum[k] = v[k].sum(), moment[k] = v[k].moment();
    sum_lanes<AXIS>(sum);
    if (FORMULA == kExpect) sum_lanes<AXIS>(moment);
#pragma unroll
    for (int k = 0; k < N; ++k) v[k].sum() = sum[k], v[k].moment() = moment[k];
  }

  template <int FORMULA, int AXIS>
  __device__ __forceinline__ void own_shift(const View<T>& view, const Seen& seen) const {
    constexpr int N = kCount<AXIS>;
    T top[N];
#pragma unroll
    for (int k = 0; k < N; ++k) top[k] = -INFINITY;
    tile_.template each<kGeneric>(view, seen, [&](int r, int c, bool some, T s, T w) {
      T& most = top[AXIS == 0 ? r : c];
      const T z = logit<!kGeneric>(view, s, w);
      most = some && z > most ? z : most;
    });
    across_lanes<AXIS>(top, [](T u, T v) { return u > v ? u : v; });
    State<T> found[N];
#pragma unroll
    for (int k = 0; k < N; ++k) found[k] = State<T>::of_lse(top[k]);
    tile_.template each<kGeneric>(view, seen, [&](int r, int c, bool some, T s, T w) {
      State<T>& own = found[AXIS == 0 ? r : c];
      const T e = some ? power<!kGeneric>(view, s, w, LogSum<T>::shift(own.top())) : T(0);
      own.sum() += e;
      if (FORMULA == kExpect && e != T(0)) own.moment() += e * s;
    });
    add_lanes<FORMULA, AXIS>(found);
    put<FORMULA, AXIS>(view, found);
  }

  template <int FORMULA>
  __device__ __forceinline__ void sums(const View<T>& view, const Seen& seen) const {
    T row[kLaneRows] = {}, col[FN] = {};
    tile_.template each<kGeneric>(view, seen, [&](int r, int c, bool some, T s, T w) {
      T u =
          some ? psi_of<FORMULA>(view, view.sign * (s - tile_.template shift<kGeneric>(view, r, c)))
               : T(0);
      if (kGeneric && some && w != T(0)) u *= ::std::exp(w);
      row[r] += u, col[c] += u;
    });
    const int j = tile_.j(), n = plan_.plan.n;
    if (view.row_part >= 0)
      accumulators_.template put_sums<0>(tile_.lane, view.row_part, row, j, n);
    if (view.col_part >= 0)
      accumulators_.template put_sums<1>(tile_.lane, view.col_part, col, j, n);
  }

  template <int AXIS>
  __device__ __forceinline__ void maxima(const View<T>& view, const Seen& seen) const {
    constexpr int N = kCount<AXIS>, kFirst = AXIS == 0 ? 1 : 4, kEnd = AXIS == 0 ? 4 : 32;
    T value[N];
    int index[N];
#pragma unroll
    for (int k = 0; k < N; ++k) value[k] = -INFINITY, index[k] = -1;
    tile_.template each<kGeneric>(view, seen, [&](int r, int c, bool some, T s, T) {
      const int k = AXIS == 0 ? r : c;
      const int other = AXIS == 0 ? tile_.col(c) : tile_.row(r);
      take_larger(value[k], index[k], some ? view.sign * s : T(-INFINITY), some ? other : -1);
    });
    State<T> found[N];
#pragma unroll
    for (int k = 0; k < N; ++k) {
      for (int step = kFirst; step < kEnd; step *= 2)
        take_larger(value[k], index[k], __shfl_xor_sync(0xffffffffu, value[k], step),
                    __shfl_xor_sync(0xffffffffu, index[k], step));
      found[k] = State<T>::of_max(value[k], index[k]);
    }
    put<kMax, AXIS>(view, found);
  }

  template <int FORMULA, int AXIS, int N>
  __device__ __forceinline__ void put(const View<T>& view, const State<T> (&v)[N]) const {
    const int part = AXIS == 0 ? view.row_part : view.col_part;
    accumulators_.template put<FORMULA, AXIS>(tile_.lane, part, v, tile_.j(), plan_.plan.n);
  }

  const ForwardPlan<T>& plan_;
  Tile<T, FN>& tile_;
  Accumulators<T, FN>& accumulators_;
  const T bound_;
};

// Computes the value of channel c at position k of batch item z from all slices.
template <class T>
__device__ void finalize(const ForwardPlan<T>& f, int c, int k, int across, int down, int batch,
                         int z) {
  const Output<T>& out = f.output[c];
  const int m = f.plan.m, n = f.plan.n, length = out.column ? n : m;
  State<T> state = empty_state<T>(out.formula);
  for (int s = 0; out.at.row >= 0 && s < down; ++s) {
    T* at = f.rows + ((int64_t(out.at.row) * batch + z) * down + s) * m + k;
    state =
        merged(out.formula, state, Components<T>{at, int64_t(batch) * down * m}.load(out.formula));
  }
  for (int s = 0; out.at.col >= 0 && s < across; ++s) {
    T* at = f.cols + ((int64_t(out.at.col) * batch + z) * across + s) * n + k;
    state = merged(out.formula, state,
                   Components<T>{at, int64_t(batch) * across * n}.load(out.formula));
  }
  const int64_t to = int64_t(z) * length + k;
  if (out.formula >= kSum) {
    out.value[to] = state.total();
    return;
  }
  if (out.formula == kMax) {
    out.value[to] = state.value();
    static_cast<int64_t*>(out.more)[to] = state.index();
    return;
  }
  const bool none = state.sum() == T(0);
  const T lse = none ? T(-INFINITY) : state.top() + ::std::log(state.sum());
  out.value[to] = out.formula == kLse ? lse : none ? T(0) : state.moment() / state.sum();
  if (out.formula == kExpect) static_cast<T*>(out.more)[to] = lse;
}

template <class T>
__global__ void merge_kernel(const __grid_constant__ ForwardPlan<T> f, int across, int down,
                             int batch) {
  const int k = blockIdx.x * blockDim.x + threadIdx.x;
  for (int c = 0; c < f.channels; ++c)
    if (k < (f.output[c].column ? f.plan.n : f.plan.m))
      finalize(f, c, k, across, down, batch, blockIdx.z);
}

// The bytes of shared memory of a kernel, its accumulators included.
template <class T, int FN>
constexpr int64_t shared_bytes(const Plan<T>& plan, int row_parts) {
  return Shared<T, FN>::bytes(plan) +
         sizeof(T) * (Accumulators<T, FN>::kParts + row_parts * kTileRows);
}

// Writes empty states to this block's slices. Each position is written by the thread that will add
// to it.
template <class T, int FN>
__device__ void clear(const ForwardPlan<T>& f, const Accumulators<T, FN>& accumulators) {
  const Plan<T>& plan = f.plan;
  for (int v = 0; v < plan.views; ++v) {
    const View<T>& view = plan.view[v];
    const State<T> none = empty_state<T>(view.formula);
    const int rows = gridDim.x * kTileRows, cols = gridDim.y * kTileCols<FN>, k = threadIdx.x;
    for (int i = blockIdx.x * kTileRows; view.row_part >= 0 && i < plan.m; i += rows)
      if (k < kTileRows && i + k < plan.m)
        accumulators.row(view.row_part, i + k).store(view.formula, none);
    for (int j = blockIdx.y * kTileCols<FN>; view.col_part >= 0 && j < plan.n; j += cols)
      if (k < kTileCols<FN> && j + k < plan.n)
        accumulators.column(view.col_part, j + k).store(view.formula, none);
  }
}

// The last block that gets here merges all slices.
template <class T>
__device__ void finish(const ForwardPlan<T>& f) {
  const int across = gridDim.x, down = gridDim.y, batch = gridDim.z;
  bool& last = *reinterpret_cast<bool*>(shared_memory);
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(f.finished, 1) == across * down * batch - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  for (int c = 0; c < f.channels; ++c) {
    const int length = f.output[c].column ? f.plan.n : f.plan.m;
    for (int64_t k = threadIdx.x; k < int64_t(batch) * length; k += kThreads)
      finalize(f, c, static_cast<int>(k % length), across, down, batch,
               static_cast<int>(k / length));
  }
}

template <class E, class T, class Fs>
__global__ void __launch_bounds__(kThreads, Fs::blocks)
    forward_kernel(const __grid_constant__ ForwardPlan<T> f) {
  constexpr int FN = Fs::cols;
  const Plan<T>& plan = f.plan;
  const Shared<T, FN> shared(plan);
  Accumulators<T, FN> accumulators(plan, shared.sums, f.rows, f.cols);
  clear(f, accumulators);
  const T range = bound(plan, shared.stages);
  Tile<T, FN> tile(plan, shared, plan.m, plan.n);
  Walk<E, T, FN> walk(plan, shared.stages, 0, plan.m, 0, plan.n);
  const Forward<E, T, Fs> forward(f, tile, accumulators, range);
  for (bool fresh = true; !walk.done(); walk.advance()) {
    const int k = threadIdx.x;
    if (fresh) {
      tile.set_rows(walk.i);
      for (int v = 0; k < kTileRows && v < plan.views; ++v)
        if (plan.view[v].row_part >= 0)
          accumulators.tile_row(plan.view[v].row_part, k)
              .store(plan.view[v].formula, empty_state<T>(plan.view[v].formula));
    }
    tile.set_cols(walk.j);
    walk.products(tile.lane, tile.acc);  // contains a barrier
    Fs::each(plan, forward);
    fresh = walk.last_of_row();
    for (int v = 0; fresh && k < kTileRows && walk.i + k < plan.m && v < plan.views; ++v) {
      const View<T>& view = plan.view[v];
      if (view.row_part >= 0)
        accumulators.row(view.row_part, walk.i + k)
            .store(view.formula, accumulators.tile_row(view.row_part, k).load(view.formula));
    }
    __syncthreads();  // before the vectors change
  }
  if (f.finished != nullptr) finish(f);
}

}  // namespace contrastloss::cuda
