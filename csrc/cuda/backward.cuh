// Computes H of a block of pairs, H_ij = scale a_i b_j G_ij, from which library matrix products
// compute the gradients of x and y, and the sums over G that the other gradients need:
//
//   G_ij = sum_c  gL theta e^(z_ij - L) (pace_ij if there is one)  +  gE p (1 + theta (s_ij - E))
//               + gH e^w sign psi'(u_ij)  +  gV sign [j = index]
//
// L, gL, ... belong to row i for row channels and to column j for column channels. A view of a
// symmetric problem that covers both orientations has both.
#pragma once

#include "forward.cuh"

namespace contrastloss::cuda {

// The statistics of one row or column and their gradients, as a view needs them.
template <class T>
struct Slope {
  T lse, grad, mean, grad_mean;
  int at;

  // A log-sum-exp of no pairs gets 0, so that no difference from it is NaN.
  __device__ __forceinline__ void drop_empty() {
    if (lse != T(-INFINITY)) return;
    lse = 0, grad = 0, grad_mean = 0;
  }
};

template <class E, class T, class Fs>
class Backward {
  static constexpr int FN = Fs::cols;
  static constexpr bool kGeneric = Fs::generic;

 public:
  // Adds the views of one orientation to g.
  __device__ Backward(const BackwardPlan<T>& plan, Tile<T, FN>& tile,
                      Accumulators<T, FN>& accumulators, bool transposed, T (&g)[kLaneRows][FN])
      : plan_(plan), tile_(tile), accumulators_(accumulators), transposed_(transposed), g_(g) {}

  template <int FORMULA>
  __device__ __forceinline__ void operator()(const View<T>& view) const {
    if (kGeneric && view.transposed != transposed_) return;
    const Cover cover = tile_.covered(view);
    if (cover == Cover::NONE) return;
    Seen seen;
    if (!tile_.template look<kGeneric>(view, cover, seen)) return;
    if (FORMULA == kLse && view.row_stats >= 0 && view.col_stats >= 0 &&
        !(kGeneric && paced(view)) && both(view, seen))
      return;
    T by_row[kLaneRows] = {}, by_col[FN] = {};
    if (view.row_stats >= 0) along<FORMULA, 0>(view, seen, by_row, by_col);
    if (view.col_stats >= 0) along<FORMULA, 1>(view, seen, by_row, by_col);
    if (!kGeneric) return;
    if (view.row_part >= 0) put<0>(view.row_part, by_row);
    if (view.col_part >= 0) put<1>(view.col_part, by_col);
  }

  template <int AXIS, int N>
  __device__ __forceinline__ void put(int part, T (&v)[N]) const {
    accumulators_.template put_sums<AXIS>(tile_.lane, part, v, tile_.j(), plan_.j1);
  }

 private:
  using Seen = typename Tile<T, FN>::Seen;

  // The statistics of channel c at a position along its own axis.
  template <int FORMULA>
  __device__ __forceinline__ Slope<T> slope(int c, bool some, int64_t at) const {
    const Stats<T>& stats = plan_.stats[c];
    Slope<T> found{T(-INFINITY), T(0), T(0), T(0), -1};
    if (!some) return found;
    if (FORMULA == kExpect) {
      found.mean = stats.mean[at];
      found.grad_mean = stats.grad ? stats.grad[at] : T(0);
    }
    if (FORMULA == kLse || FORMULA == kExpect) {
      found.lse = stats.lse[at];
      found.grad = stats.grad_lse ? stats.grad_lse[at] : T(0);
    }
    if (FORMULA == kMax) found.at = static_cast<int>(stats.at[at]);
    if (FORMULA == kMax || FORMULA >= kSum) found.grad = stats.grad[at];
    return found;
  }

  template <int FORMULA, int AXIS, int N>
  __device__ __forceinline__ void slopes(const View<T>& view, Slope<T> (&own)[N]) const {
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const bool some = AXIS == 0 ? tile_.row_in(k) : tile_.col_in(k);
      const int64_t at = AXIS == 0 ? tile_.row_place(tile_.row(k)) : tile_.col_place(tile_.col(k));
      own[k] = slope<FORMULA>(AXIS == 0 ? view.row_stats : view.col_stats, some, at);
    }
  }

  // One exponential for the rows and the columns of an LSE, with B the least of the L of the warp's
  // rows and columns:
  //
  //   e^(z - L_i) g_i + e^(z - L_j) g_j = e^(z - B) (e^(B - L_i) g_i + e^(B - L_j) g_j)
  //
  // Returns false, for the whole warp, if the L are too far apart for that, or B is too large.
  __device__ __forceinline__ bool both(const View<T>& view, const Seen& seen) const {
    Slope<T> row[kLaneRows], col[FN];
    slopes<kLse, 0>(view, row), slopes<kLse, 1>(view, col);
    T low = INFINITY, high = -INFINITY;
    const auto widen = [&](T lse) {
      if (lse == T(-INFINITY)) return;
      low = lse < low || lse != lse ? lse : low, high = lse > high ? lse : high;
    };
#pragma unroll
    for (int r = 0; r < kLaneRows; ++r) widen(row[r].lse);
#pragma unroll
    for (int c = 0; c < FN; ++c) widen(col[c].lse);
    for (int step = 16; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(0xffffffffu, low, step);
      low = other < low || other != other ? other : low;
      high = larger(high, __shfl_xor_sync(0xffffffffu, high, step));
    }
    if (high < low) return true;  // none of them has any pairs
    if (!(high - low <= kRange<T> && ::std::fabs(low) <= Power<T>::kLargest)) return false;
    const T shift = Power<T>::shift(low), top = Power<T>::top(shift);
    const T rest = Power<T>::rest(shift) * view.theta;
    const auto relate = [&](Slope<T>& own) {
      own.grad *= own.lse == T(-INFINITY) ? T(0) : rest * ::std::exp(top - own.lse);
    };
#pragma unroll
    for (int r = 0; r < kLaneRows; ++r) relate(row[r]);
#pragma unroll
    for (int c = 0; c < FN; ++c) relate(col[c]);
    tile_.template each<kGeneric>(view, seen, [&](int r, int c, bool some, T s, T w) {
      const T e = some ? fast_power<!kGeneric>(view, s, w, shift) : T(0);
      g_[r][c] += e * (row[r].grad + col[c].grad);
    });
    return true;
  }

  // Adds what the statistics of the tile's rows (AXIS 0) or columns (AXIS 1) contribute.
  template <int FORMULA, int AXIS>
  __device__ __forceinline__ void along(const View<T>& view, const Seen& seen,
                                        T (&by_row)[kLaneRows], T (&by_col)[FN]) const {
    constexpr int N = AXIS == 0 ? kLaneRows : FN;
    Slope<T> own[N];
    slopes<FORMULA, AXIS>(view, own);
    if (FORMULA == kLse || FORMULA == kExpect) {
#pragma unroll
      for (int k = 0; k < N; ++k) own[k].drop_empty();
    }
    tile_.template each<kGeneric>(view, seen, [&](int r, int c, bool some, T s, T w) {
      const int other = AXIS == 0 ? tile_.col(c) : tile_.row(r);
      const T g = some ? part<FORMULA>(view, own[AXIS == 0 ? r : c], r, c, s, w, other) : T(0);
      g_[r][c] += g;
      if (kGeneric) by_row[r] -= g, by_col[c] -= g;
    });
  }

  template <int FORMULA>
  __device__ __forceinline__ T part(const View<T>& view, const Slope<T>& own, int r, int c, T s,
                                    T w, int other) const {
    if constexpr (FORMULA == kLse || FORMULA == kExpect) {
      const T p = power<!kGeneric>(view, s, w, own.lse);
      if (kGeneric && p == T(0)) return 0;
      T slope = own.grad * view.theta;
      if (kGeneric && paced(view) && view.theta != T(0)) slope *= pace(view, s);
      if (FORMULA == kExpect) slope += own.grad_mean * (T(1) + view.theta * (s - own.mean));
      return p * slope;
    } else if constexpr (FORMULA == kMax) {
      return own.at == other ? own.grad * view.sign : T(0);
    } else {
      const T mu = tile_.template shift<kGeneric>(view, r, c);
      const T g = own.grad * view.sign * dpsi_of<FORMULA>(view, view.sign * (s - mu));
      return kGeneric && w != T(0) ? g * ::std::exp(w) : g;
    }
  }

  const BackwardPlan<T>& plan_;
  Tile<T, FN>& tile_;
  Accumulators<T, FN>& accumulators_;
  const bool transposed_;
  T (&g_)[kLaneRows][FN];
};

// Computes the sums over G of one orientation that `parts` asks for.
template <class T, int FN, class Put>
__device__ __forceinline__ void sum_up(const Tile<T, FN>& tile, bool transposed,
                                       const SumParts& parts, const T (&g)[kLaneRows][FN],
                                       const Put& put) {
  const auto reduce = [&](const Parts& to, const auto& row_of, const auto& col_of) {
    if (to.row < 0 && to.col < 0) return;
    T row[kLaneRows] = {}, col[FN] = {};
#pragma unroll
    for (int c = 0; c < FN; ++c)
#pragma unroll
      for (int r = 0; r < kLaneRows; ++r) row[r] += row_of(r, c), col[c] += col_of(r, c);
    if (to.row >= 0) put.template put<0>(to.row, row);
    if (to.col >= 0) put.template put<1>(to.col, col);
  };
  const auto own = [&](int r, int c) { return g[r][c]; };
  reduce(parts.bias, own, own);
  reduce(
      parts.dot,
      [&](int r, int c) { return g[r][c] * tile.acc[r][c] * tile.col_factor(transposed, c); },
      [&](int r, int c) { return g[r][c] * tile.acc[r][c] * tile.row_factor(transposed, r); });
}

template <class E>
struct alignas(2 * sizeof(E)) Two {
  E first, second;
};

// Writes h of the tile. Rows of the block begin at multiples of 16 bytes.
template <class E, class T, int FN>
__device__ __forceinline__ void store(const BackwardPlan<T>& f, const Tile<T, FN>& tile,
                                      const T (&h)[kLaneRows][FN]) {
  const T gain = f.gain ? *f.gain : T(1);
  E* block = static_cast<E*>(f.h) + int64_t(blockIdx.z) * f.h_item;
#pragma unroll
  for (int r = 0; r < kLaneRows; ++r) {
    if (!tile.row_in(r)) continue;
    E* row = block + int64_t(tile.row(r) - f.i0) * f.h_row;
#pragma unroll
    for (int c = 0; c < FN; c += 2) {
      const Two<E> two{E(h[r][c] * gain), E(h[r][c + 1] * gain)};
      E* to = row + tile.col(c) - f.j0;
      if (tile.col_in(c + 1)) {
        *reinterpret_cast<Two<E>*>(to) = two;
      } else if (tile.col_in(c)) {
        *to = two.first;
      }
    }
  }
}

// Writes zeros to the block's tiles below the diagonal of a symmetric problem, which the walk
// skips.
template <class E, class T, int FN>
__device__ void blank(const BackwardPlan<T>& f, Tile<T, FN>& tile) {
  const T zero[kLaneRows][FN] = {};
  for (int i = f.i0 + blockIdx.x * kTileRows; i < f.i1; i += gridDim.x * kTileRows)
    for (int j = f.j0 + blockIdx.y * kTileCols<FN>; j < f.j1 && j + kTileCols<FN> - 1 <= i;
         j += gridDim.y * kTileCols<FN>) {
      tile.move(i, j);
      store<E, T, FN>(f, tile, zero);
    }
}

// H of a tile in one orientation, and the sums over its G.
template <class E, class T, class Fs>
__device__ __forceinline__ void orient(const BackwardPlan<T>& f, Tile<T, Fs::cols>& tile,
                                       Accumulators<T, Fs::cols>& accumulators, bool transposed,
                                       T (&g)[kLaneRows][Fs::cols]) {
  const Backward<E, T, Fs> backward(f, tile, accumulators, transposed, g);
  Fs::each(f.plan, backward);
  sum_up(tile, transposed, f.sums[transposed], g, backward);
#pragma unroll
  for (int c = 0; c < Fs::cols; ++c)
#pragma unroll
    for (int r = 0; r < kLaneRows; ++r) g[r][c] *= tile.factor(transposed, r, c);
}

template <class E, class T, class Fs>
__global__ void __launch_bounds__(kThreads, Fs::blocks)
    h_block_kernel(const __grid_constant__ BackwardPlan<T> f) {
  constexpr int FN = Fs::cols;
  const Plan<T>& plan = f.plan;
  const Shared<T, FN> shared(plan);
  Accumulators<T, FN> accumulators(plan, shared.sums, f.rows, f.cols);
  Tile<T, FN> tile(plan, shared, f.i1, f.j1);
  if (plan.symmetric) blank<E, T, FN>(f, tile);
  Walk<E, T, FN> walk(plan, shared.stages, f.i0, f.i1, f.j0, f.j1);
  const int k = threadIdx.x;
  for (bool fresh = true; !walk.done(); walk.advance()) {
    if (fresh) {
      tile.set_rows(walk.i);
      for (int part = 0; k < kTileRows && part < f.row_parts; ++part)
        *accumulators.tile_row(part, k).at = T(0);
    }
    tile.set_cols(walk.j);
    walk.products(tile.lane, tile.acc);  // contains a barrier
    T h[kLaneRows][FN] = {};
    orient<E, T, Fs>(f, tile, accumulators, false, h);
    if (Fs::generic && plan.turned) {
      T other[kLaneRows][FN] = {};
      orient<E, T, Fs>(f, tile, accumulators, true, other);
#pragma unroll
      for (int c = 0; c < FN; ++c)
#pragma unroll
        for (int r = 0; r < kLaneRows; ++r) h[r][c] += other[r][c];
    }
    store<E, T, FN>(f, tile, h);
    fresh = walk.last_of_row();
    for (int part = 0; fresh && k < kTileRows && walk.i + k < f.i1 && part < f.row_parts; ++part)
      *accumulators.row(part, walk.i + k).at += *accumulators.tile_row(part, k).at;
    __syncthreads();  // before the vectors change
  }
}

}  // namespace contrastloss::cuda
