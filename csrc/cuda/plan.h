// What kernels are told: plain data, small enough to be a kernel's parameter.
//
// A tile holds pairs of tile rows and tile columns. Of a symmetric problem only pairs above the
// diagonal are visited, each seen twice: direct, as (row i, column j), and transposed, as (j, i). A
// View is one way to look at all pairs: a channel's formula, seen direct or transposed, and what is
// reduced of it along the tile's rows and columns. Where both ways give the same numbers, one view
// serves.
#pragma once

#include <cstdint>

#include "../channel.h"
#include "../problem.h"

namespace contrastloss::cuda {

constexpr int kMaxChannels = 12, kMaxViews = 2 * kMaxChannels;
constexpr int kMaxGroups = kMaxChannels, kMaxTests = 24, kMaxTerms = 12;

// A channel's formula as one number: its kind or, of a sum, its psi.
CL_HD constexpr int formula(Kind kind, int psi = 0) {
  return kind == Kind::SUM ? 4 + psi : static_cast<int>(kind);
}
constexpr int kLse = formula(Kind::LSE), kExpect = formula(Kind::EXPECT), kMax = formula(Kind::MAX);
constexpr int kSum = formula(Kind::SUM), kOne = formula(Kind::SUM, static_cast<int>(Psi::One));
constexpr int kId = formula(Kind::SUM, static_cast<int>(Psi::Id));
constexpr int kSoftplus = formula(Kind::SUM, static_cast<int>(Psi::Softplus));

// How many numbers the state of a formula is: see State.
CL_HD constexpr int components(int formula) {
  return formula == kExpect ? 3 : formula == kLse || formula == kMax ? 2 : 1;
}

// Ranges of the plan's tests and terms.
struct Pairs {
  int test, tests_end, term, terms_end;

  CL_HD int term_count() const { return terms_end - term; }
};

template <class T>
struct Weight {
  TermKind kind;
  int extent;  // numbers of a form's vectors; of DIFFERING the number of tests from `first` on
  int first;
  T value;
  const T* row;
  const T* col;
};

// Components of the state that is kept per tile row or per tile column; -1: nothing is kept.
struct Parts {
  int row = -1, col = -1;
};

template <class T>
struct View {
  short formula;
  short group;
  short column;  // of which axis the channel is
  bool transposed;
  // forward: from which component on its state is kept. Backward: that of the shift's gradient.
  short row_part, col_part;
  // backward: whose statistics count along the tile's rows and columns, -1: none
  short row_stats, col_stats;
  T theta, sign, margin;
  const T* shift;
};

// Sums over a view's gradients, for what is differentiated beside x, y and the shifts.
struct SumParts {
  Parts bias, dot;
};

template <class T>
struct Plan {
  const void* x;
  const void* y;
  int m, n, d;
  bool symmetric;
  bool wide;       // rows can be read 16 bytes at a time
  const T* scale;  // null: 1
  const T* a;      // with cosines these hold the inverse norms too
  const T* b;
  const T* beta;
  const T* gamma;
  const T* bounds;  // partial maxima of |a_i| |x_i|, |b_j| |y_j|, |beta_i|, |gamma_j|
  int bound_parts;  // of each
  int views, tests, terms, groups;
  View<T> view[kMaxViews];
  Pairs pairs[kMaxGroups];
  Test test[kMaxTests];
  Weight<T> term[kMaxTerms];
};

// What becomes of one channel's state.
template <class T>
struct Output {
  short formula;
  bool column;
  Parts at;
  T* value;
  void* more;  // EXPECT: its log-sum-exp; MAX: the index
};

template <class T>
struct ForwardPlan {
  Plan<T> plan;
  int row_parts, col_parts, channels;
  T* rows;        // (row_parts, batch, down, m)
  T* cols;        // (col_parts, batch, across, n)
  int* finished;  // blocks that are done; null: slices are merged by a kernel of its own
  Output<T> output[kMaxChannels];
};

template <class T>
struct Stats {
  const T* mean;
  const T* lse;
  const int64_t* at;
  const T* grad;
  const T* grad_lse;
};

template <class T>
struct BackwardPlan {
  Plan<T> plan;
  int row_parts, col_parts;
  T* rows;             // (row_parts, batch, down, m), added to
  T* cols;             // (col_parts, batch, across, n), added to
  int i0, i1, j0, j1;  // the block of H
  void* h;
  int64_t h_row, h_item;  // strides
  const T* gain;          // null: 1
  SumParts sums[2];       // of direct and of transposed views
  Stats<T> stats[kMaxChannels];
};

// Sums of slices, (batch, m) or (batch, n) each.
constexpr int kMaxTotals = 4 + kMaxChannels;
template <class T>
struct Totals {
  int count, batch, m, n, down, across;
  const T* rows;
  const T* cols;
  struct {
    bool column;
    Parts at;
    T* to;
  } total[kMaxTotals];
};

// One side of a problem: rows (count, d), their own factor and bias, and what is found of them.
template <class T>
struct Side {
  const void* rows;
  int64_t count;
  const T* factor;
  const T* bias;
  T* inverse;  // 1 / max(|x|, 1e-12), 0 for a zero row; null: no cosines
  T* product;  // factor times inverse; null: no cosines
};

template <class T>
struct Sides {
  Side<T> side[2];
  int sides, d;
  T* bounds;      // (4, blocks): see Plan
  int* finished;  // set to 0, if there is one
};

// The gradient of one side from its sums over H times the other side.
template <class T>
struct Finish {
  const T* sums;
  const void* x;
  const T* inverse;  // null: no cosines
  const T* gain;     // null: 1
  void* to;
  bool narrow;  // in the element type, not in that of the statistics
  int64_t rows;
  int d;
};

// Programs that have kernels of their own, with their formulas in ascending order: of MoCo, CLIP
// and NT-Xent, SupCon, multi-similarity, hard negatives, SigLIP. See Formulas in pairs.cuh.
enum class Special {
  NONE,
  LOG,               // kLse
  LOG_AND_SUM,       // kLse, kId
  LOG_AND_SUMS,      // kLse, kOne, kId
  TWO_LOGS,          // kLse, kLse
  TWO_LOGS_AND_SUM,  // kLse, kLse, kId
  SUM_AND_SOFTPLUS,  // kId, kSoftplus
};

// Over how many blocks rows and columns of tiles are spread.
struct Grid {
  int across, down, batch;
};

}  // namespace contrastloss::cuda
