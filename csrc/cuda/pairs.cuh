// The scores of a tile, and which of its pairs a view includes, with their log-weights.
#pragma once

#include "../channel.h"
#include "shared.cuh"

namespace contrastloss::cuda {

// A pair: its positions within the batch item, and the indices of its row and column in memory.
struct Pair {
  int i, j;
  int64_t row, col;
};

// Whether a pair passes a test, for the ids of a term; Tile::passing is faster.
template <class T>
__device__ bool passes(const Plan<T>& plan, const PlanTest& test, const Pair& at) {
  const TestIds ids = test.slot < 0 ? TestIds{nullptr, nullptr} : plan.id[test.slot];
  const int64_t u = ids.row ? ids.row[at.row] : at.i, v = ids.col ? ids.col[at.col] : at.j;
  return contrastloss::passes(test.op, u, v, test.width);
}

template <class T>
__device__ T or_one(const T* v, int64_t at) {
  return v ? v[at] : T(1);
}
template <class T>
__device__ T or_zero(const T* v, int64_t at) {
  return v ? v[at] : T(0);
}

// A pair's score from its product, for a term of which there is one copy; Tile::score is faster.
template <class T>
__device__ T score(const Plan<T>& plan, const Pair& at, T product) {
  const T factor = or_one(plan.scale, 0) * or_one(plan.a, at.row) * or_one(plan.b, at.col);
  return product * factor + or_zero(plan.beta, at.row) + or_zero(plan.gamma, at.col);
}

template <class T>
__device__ T log_weight(const Plan<T>& plan, const Weight<T>& term, const Pair& at, T product) {
  switch (term.kind) {
    case TermKind::ROW: return term.row[at.row];
    case TermKind::COL: return term.col[at.col];
    case TermKind::DISTANCE: return distance_weight(term.value, term.row[at.row], term.col[at.col]);
    case TermKind::DIFFERING: {
      int count = 0;
      for (int k = 0; k < term.extent; ++k) count += passes(plan, plan.test[term.first + k], at);
      return ::std::log(T(count));
    }
    case TermKind::NOT_ABOVE: return up_to(term.row[at.row], score(plan, at, product));
    default: break;
  }
  const T* left = term.row + at.row * term.extent;
  const T* right = term.col + at.col * term.extent;
  T t = 0;
  for (int k = 0; k < term.extent; ++k) t += left[k] * right[k];
  if (term.kind == TermKind::FORM) return form_weight<TermKind::FORM>(term.value, t);
  if (term.kind == TermKind::LOG_FORM) return form_weight<TermKind::LOG_FORM>(term.value, t);
  return form_weight<TermKind::AT_MOST>(term.value, t);
}

// Terms are not inlined: one copy serves all numbers of a lane.
template <class T>
__device__ __noinline__ T log_weights(const Plan<T>& plan, const Pairs& pairs, const Pair& at,
                                      T product) {
  T w = 0;
  for (int k = pairs.term; k < pairs.terms_end; ++k)
    w += log_weight(plan, plan.term[k], at, product);
  return w;
}

enum class Cover { NONE, SOME, ALL };

// Decides a test on positions for rows [i, i_end) and columns [j, j_end); tests on ids give SOME.
__device__ inline Cover cover(const PlanTest& test, int i, int i_end, int j, int j_end) {
  if (test.slot >= 0) return Cover::SOME;
  const bool apart = i_end <= j || j_end <= i;
  switch (test.op) {
    case Compare::EQ: return apart ? Cover::NONE : Cover::SOME;
    case Compare::NE: return apart ? Cover::ALL : Cover::SOME;
    case Compare::LT: return i_end <= j ? Cover::ALL : i >= j_end - 1 ? Cover::NONE : Cover::SOME;
    default: return Cover::SOME;
  }
}

template <class T, int FN>
class Tile {
 public:
  __device__ Tile(const Plan<T>& plan, const Shared<T, FN>& shared, int i_end, int j_end)
      : plan_(plan),
        vectors_(shared.vectors),
        ids_(shared.ids),
        scale_(plan.scale ? *plan.scale : T(1)),
        i_end_(i_end),
        j_end_(j_end) {}

  const Lane lane;
  T acc[kLaneRows][FN];

  __device__ int row(int r) const { return i_ + lane.row(r); }
  __device__ int col(int c) const { return j_ + lane.template col<FN>(c); }
  __device__ bool row_in(int r) const { return row(r) < i_end_; }
  __device__ bool col_in(int c) const { return col(c) < j_end_; }
  __device__ int64_t row_place(int i) const { return int64_t(blockIdx.z) * plan_.m + i; }
  __device__ int64_t col_place(int j) const { return int64_t(blockIdx.z) * plan_.n + j; }
  __device__ int i() const { return i_; }
  __device__ int j() const { return j_; }

  __device__ void move(int i, int j) { i_ = i, j_ = j; }

  // A barrier must follow both of these before the first score.
  __device__ void set_rows(int i) {
    i_ = i;
    ids_.set(plan_, false, i, i_end_, row_place(i));
    for (int k = threadIdx.x; k < kTileRows; k += kThreads) {
      const bool some = i + k < i_end_;
      const int64_t at = row_place(i + k);
      vectors_.row_factor[0][k] = some ? or_one(plan_.a, at) : T(0);
      vectors_.row_add[0][k] = some ? or_zero(plan_.beta, at) : T(0);
      if (!plan_.turned) continue;
      vectors_.row_factor[1][k] = some ? or_one(plan_.b, at) : T(0);
      vectors_.row_add[1][k] = some ? or_zero(plan_.gamma, at) : T(0);
    }
  }
  __device__ void set_cols(int j) {
    j_ = j;
    ids_.set(plan_, true, j, j_end_, col_place(j));
    for (int k = threadIdx.x; k < kTileCols<FN>; k += kThreads) {
      const bool some = j + k < j_end_;
      const int64_t at = col_place(j + k);
      vectors_.col_factor[0][k] = some ? or_one(plan_.b, at) : T(0);
      vectors_.col_add[0][k] = some ? or_zero(plan_.gamma, at) : T(0);
      if (!plan_.turned) continue;
      vectors_.col_factor[1][k] = some ? or_one(plan_.a, at) : T(0);
      vectors_.col_add[1][k] = some ? or_zero(plan_.beta, at) : T(0);
    }
  }

  __device__ __forceinline__ T row_factor(bool transposed, int r) const {
    return vectors_.row_factor[transposed][lane.row(r)];
  }
  __device__ __forceinline__ T col_factor(bool transposed, int c) const {
    return vectors_.col_factor[transposed][lane.template col<FN>(c)];
  }
  __device__ __forceinline__ T factor(bool transposed, int r, int c) const {
    return scale_ * row_factor(transposed, r) * col_factor(transposed, c);
  }
  __device__ __forceinline__ T score(bool transposed, int r, int c) const {
    const T product = acc[r][c] * factor(transposed, r, c);
    return product + vectors_.row_add[transposed][lane.row(r)] +
           vectors_.col_add[transposed][lane.template col<FN>(c)];
  }

  __device__ Pair pair(bool transposed, int r, int c) const {
    const int i = row(r), j = col(c);
    if (transposed) return {j, i, row_place(j), col_place(i)};
    return {i, j, row_place(i), col_place(j)};
  }
  // The shift of a pair's score; only generic kernels have shifts.
  template <bool GENERIC>
  __device__ __forceinline__ T shift(const View<T>& view, int r, int c) const {
    if (!GENERIC || !view.shift) return T(0);
    const Pair at = pair(view.transposed, r, c);
    return view.shift[view.column ? at.col : at.row];
  }
  // Whether this pair of the tile exists.
  __device__ bool counts(int r, int c) const {
    return row_in(r) && col_in(c) && (!plan_.symmetric || row(r) < col(c));
  }
  __device__ bool whole() const {
    const int i_last = i_ + kTileRows;
    return i_last <= i_end_ && j_ + kTileCols<FN> <= j_end_ && !(plan_.symmetric && i_last > j_);
  }
  __device__ Cover covered(const View<T>& view) const {
    const Pairs& pairs = plan_.pairs[view.group];
    const int i_last = min(i_ + kTileRows, i_end_), j_last = min(j_ + kTileCols<FN>, j_end_);
    Cover all = whole() && pairs.term == pairs.terms_end ? Cover::ALL : Cover::SOME;
    for (int k = pairs.test; k < pairs.tests_end; ++k) {
      const PlanTest& test = plan_.test[k];
      const Cover one = view.transposed ? cover(test, j_, j_last, i_, i_last)
                                        : cover(test, i_, i_last, j_, j_last);
      if (one == Cover::NONE) return one;
      if (one == Cover::SOME) all = one;
    }
    return all;
  }

  // Which of the lane's pairs the view includes, and their log-weights.
  struct Seen {
    bool all;  // in the whole warp
    Mask mask;
    T weight[kLaneRows][FN];  // only in kernels that support terms
  };

  // Finds the pairs of a view whose cover is not NONE. The answer, which is that of the whole
  // block: whether there are any.
  template <bool TERMS>
  __device__ __forceinline__ bool look(const View<T>& view, Cover cover, Seen& seen) const {
    const Pairs& pairs = plan_.pairs[view.group];
    if constexpr (TERMS) {
#pragma unroll
      for (int c = 0; c < FN; ++c)
#pragma unroll
        for (int r = 0; r < kLaneRows; ++r) seen.weight[r][c] = 0;
    }
    seen.mask = kEvery<FN>;
    seen.all = cover == Cover::ALL;
    if (seen.all) return true;
    if (!whole()) seen.mask = pairs_where<FN>([&](int r, int c) { return counts(r, c); });
    for (int k = pairs.test; k < pairs.tests_end; ++k)
      seen.mask &= passing(plan_.test[k], view.transposed);
    if (TERMS && pairs.term_count()) weigh(view, seen);
    seen.all = __ballot_sync(0xffffffffu, seen.mask == kEvery<FN>) == 0xffffffffu;
    return __syncthreads_or(seen.mask != 0);
  }

  // Calls f(r, c, seen, s, w) for all of the lane's pairs, unrolled. s and w are meaningless for a
  // pair that is not seen.
  template <bool TERMS, class F>
  __device__ __forceinline__ void each(const View<T>& view, const Seen& seen, const F& f) const {
    if (!TERMS && seen.all) {
#pragma unroll
      for (int c = 0; c < FN; ++c)
#pragma unroll
        for (int r = 0; r < kLaneRows; ++r) f(r, c, true, score(view.transposed, r, c), T(0));
      return;
    }
#pragma unroll
    for (int c = 0; c < FN; ++c)
#pragma unroll
      for (int r = 0; r < kLaneRows; ++r)
        f(r, c, (seen.mask & bit<FN>(r, c)) != 0, score(view.transposed, r, c),
          TERMS ? seen.weight[r][c] : T(0));
  }

 private:
  // The lane's pairs that pass a test.
  __device__ __forceinline__ Mask passing(const PlanTest& test, bool transposed) const {
    if (test.op == Compare::EQ || test.op == Compare::NE) {
      const Mask equal =
          test.slot < 0
              ? pairs_where<FN>([&](int r, int c) { return row(r) == col(c); })
              : pairs_where<FN>([&](int r, int c) {
                  return row_id(test.slot, transposed, r) == col_id(test.slot, transposed, c);
                });
      return test.op == Compare::EQ ? equal : ~equal;
    }
    // not unrolled, since nothing here is indexed in registers
    Mask found = 0;
#pragma unroll 1
    for (int k = 0; k < kLaneRows * FN; ++k) {
      const int r = k / FN, c = k % FN;
      int64_t u = row(r), v = col(c);
      if (test.slot >= 0)
        u = row_id(test.slot, transposed, r), v = col_id(test.slot, transposed, c);
      if (contrastloss::passes(test.op, transposed ? v : u, transposed ? u : v, test.width))
        found |= Mask(1) << k;
    }
    return found;
  }
  __device__ __forceinline__ int64_t row_id(int slot, bool transposed, int r) const {
    return ids_.row(slot, transposed, lane.row(r));
  }
  __device__ __forceinline__ int64_t col_id(int slot, bool transposed, int c) const {
    return ids_.col(slot, transposed, lane.template col<FN>(c));
  }

  __device__ __forceinline__ void weigh(const View<T>& view, Seen& seen) const {
    const Pairs& pairs = plan_.pairs[view.group];
#pragma unroll
    for (int c = 0; c < FN; ++c)
#pragma unroll
      for (int r = 0; r < kLaneRows; ++r) {
        if (!(seen.mask & bit<FN>(r, c))) continue;
        T& w = seen.weight[r][c];
        w = log_weights(plan_, pairs, pair(view.transposed, r, c), acc[r][c]);
        if (w == T(-INFINITY)) seen.mask &= ~bit<FN>(r, c);
      }
  }

  const Plan<T>& plan_;
  Vectors<T, FN>& vectors_;
  const Ids<FN> ids_;
  const T scale_;
  const int i_end_, j_end_;
  int i_ = 0, j_ = 0;
};

// The logit: theta s + w or, with a pace, theta [s + m]_+ (s - m) + w; 1 - s and 1 - m replace s
// and m if theta is negative.
template <class T>
__device__ __forceinline__ T pace(const View<T>& view, T s) {
  return contrastloss::pace(s, view.margin, view.theta < T(0));
}
template <class T>
__device__ __forceinline__ bool paced(const View<T>& view) {
  return view.margin == view.margin;
}
template <bool PLAIN, class T>
__device__ __forceinline__ T logit(const View<T>& view, T s, T w) {
  if (PLAIN) return view.theta * s;
  if (view.theta == T(0)) return w;
  if (!paced(view)) return view.theta * s + w;
  const T offset = view.theta < T(0) ? T(1) - view.margin : view.margin;
  return view.theta * pace(view, s) * (s - offset) + w;
}

// psi and psi' of a SUM whose formula is a constant or, for kAnySum, that of the view.
constexpr int kAnySum = kSum + 100;

template <class T>
__device__ __noinline__ T psi_of(int formula, T u) {
  switch (static_cast<Psi>(formula - kSum)) {
#define CL_CASE(P, name) \
  case Psi::P: return psi<Psi::P>(u);
    CL_EACH_PSI(CL_CASE)
#undef CL_CASE
  }
  return u;
}
template <class T>
__device__ __noinline__ T dpsi_of(int formula, T u) {
  switch (static_cast<Psi>(formula - kSum)) {
#define CL_CASE(P, name) \
  case Psi::P: return dpsi<Psi::P>(u);
    CL_EACH_PSI(CL_CASE)
#undef CL_CASE
  }
  return T(0);
}
template <int FORMULA, class T>
__device__ __forceinline__ T psi_of(const View<T>& view, T u) {
  if constexpr (FORMULA == kAnySum)
    return psi_of(view.formula, u);
  else
    return psi<static_cast<Psi>(FORMULA - kSum)>(u);
}
template <int FORMULA, class T>
__device__ __forceinline__ T dpsi_of(const View<T>& view, T u) {
  if constexpr (FORMULA == kAnySum)
    return dpsi_of(view.formula, u);
  else
    return dpsi<static_cast<Psi>(FORMULA - kSum)>(u);
}

// The formulas of all views, in order. The combinations that losses use most have their own
// kernels, in which formulas are constants and which support no terms, paces or shifts. An empty
// list means that formulas are read from the plan.
//
// CL_TWO_BLOCKS: tiles of half the columns, so that two blocks share a multiprocessor and one
// multiplies while the other exponentiates, a prototype.
#if defined(CL_TWO_BLOCKS)
constexpr int kBlocks = 2, kConstantCols = 8;
#else
constexpr int kBlocks = 1, kConstantCols = 16;
#endif

template <int... FORMULAS>
struct Formulas {
  static constexpr bool generic = sizeof...(FORMULAS) == 0;
  // FN: few numbers per lane if the code for each number is long
  static constexpr int cols = generic ? 4 : kConstantCols;
  // how many blocks share a multiprocessor, at least
  static constexpr int blocks = generic ? 1 : kBlocks;

  // Calls f.template operator()<FORMULA>(view) for every view, in order.
  template <class T, class F>
  __device__ __forceinline__ static void each(const Plan<T>& plan, const F& f) {
    if constexpr (generic) {
      for (int k = 0; k < plan.views; ++k) pick(plan.view[k], f);
    } else {
      int k = 0;
      (f.template operator()<FORMULAS>(plan.view[k++]), ...);
    }
  }

 private:
  template <class T, class F>
  __device__ __forceinline__ static void pick(const View<T>& view, const F& f) {
    switch (view.formula) {
      case kLse: return f.template operator()<kLse>(view);
      case kExpect: return f.template operator()<kExpect>(view);
      case kMax: return f.template operator()<kMax>(view);
      default: return f.template operator()<kAnySum>(view);
    }
  }
};

}  // namespace contrastloss::cuda
