// The arguments of kernels: plain data, small enough to be a kernel parameter.
//
// A tile holds the pairs of tile rows and tile columns. In a symmetric problem only pairs above the
// diagonal are visited, each in two orientations: direct, as (row i, column j), and transposed, as
// (j, i). A View is a channel's formula in one orientation, and what is reduced of it along the
// tile's rows and columns. If both orientations give the same numbers, one view covers both.
#pragma once

#include <cstdint>

#include "../channel.h"
#include "../problem.h"

namespace contrastloss::cuda {

constexpr int kMaxChannels = 12, kMaxViews = 2 * kMaxChannels;
constexpr int kMaxGroups = kMaxChannels, kMaxTests = 24, kMaxTerms = 12, kMaxIds = 12;

// A channel's formula as one number: its kind or, for a SUM, its psi.
CL_HD constexpr int formula(Kind kind, int psi = 0) {
  return kind == Kind::SUM ? 4 + psi : static_cast<int>(kind);
}
constexpr int kLse = formula(Kind::LSE), kExpect = formula(Kind::EXPECT), kMax = formula(Kind::MAX);
constexpr int kSum = formula(Kind::SUM), kOne = formula(Kind::SUM, static_cast<int>(Psi::One));
constexpr int kId = formula(Kind::SUM, static_cast<int>(Psi::Id));
constexpr int kSoftplus = formula(Kind::SUM, static_cast<int>(Psi::Softplus));

// How many numbers the State of a formula has.
CL_HD constexpr int components(int formula) {
  return formula == kExpect ? 3 : formula == kLse || formula == kMax ? 2 : 1;
}

// The ids of rows and of columns that a test compares; null: their positions.
struct TestIds {
  const int64_t* row;
  const int64_t* col;
};

// A test on the ids in a slot of the plan; slot -1: on positions alone.
struct PlanTest {
  Compare op;
  int slot;
  int64_t width;
};

// The ranges of a group's tests and terms in the plan.
struct Pairs {
  int test, tests_end, term, terms_end;

  CL_HD int term_count() const { return terms_end - term; }
};

template <class T>
struct Weight {
  TermKind kind;
  int extent;  // length of a form's vectors; for DIFFERING, the number of tests from `first` on
  int first;
  T value;
  const T* row;
  const T* col;
};

// The first component of the accumulators per tile row and per tile column; -1: none.
struct Parts {
  int row = -1, col = -1;
};

template <class T>
struct View {
  short formula;
  short group;
  short column;  // whether it is a column channel
  bool transposed;
  // forward: the first component of its accumulators; backward: that of the shift's gradient
  short row_part, col_part;
  // backward: the channel whose statistics apply along the tile's rows and columns; -1: none
  short row_stats, col_stats;
  T theta, sign, margin;
  const T* shift;
};

// The sums over G for gradients other than those of x, y and the shifts.
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
  bool tf32;       // products of fp32 may be rounded to TF32
  const T* scale;  // null: 1
  const T* a;      // with cosines, a and b include the inverse norms
  const T* b;
  const T* beta;
  const T* gamma;
  const T* bounds;  // partial maxima of |a_i| |x_i|, |b_j| |y_j|, |beta_i|, |gamma_j|
  int bound_parts;  // of each
  bool turned;      // whether there are transposed views
  int views, tests, terms, groups, ids;
  View<T> view[kMaxViews];
  Pairs pairs[kMaxGroups];
  PlanTest test[kMaxTests];
  TestIds id[kMaxIds];
  Weight<T> term[kMaxTerms];
};

// The values of one channel, and where its states are.
template <class T>
struct Output {
  short formula;
  bool column;
  Parts at;
  T* value;
  void* more;  // EXPECT: the log-sum-exp; MAX: the index
};

template <class T>
struct ForwardPlan {
  Plan<T> plan;
  int row_parts, col_parts, channels;
  T* rows;        // (row_parts, batch, down, m)
  T* cols;        // (col_parts, batch, across, n)
  int* finished;  // number of blocks that are done; null: a second kernel merges the slices
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

// The sums over slices, (batch, m) or (batch, n) each.
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

// One side of a problem, x or y: its rows (count, d), its factors and biases, and the norms
// computed from it.
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
  bool wide;      // rows can be read 16 bytes at a time
  T* bounds;      // (4, blocks): see Plan
  int* finished;  // set to 0 if not null
  T* clear[2];    // set to 0, so many numbers each
  int64_t cleared[2];
};

// Computes the gradient of one side from the sums over H times the other side.
template <class T>
struct Finish {
  const T* sums;
  const T* more;  // null, or further sums that are added
  const void* x;
  const T* inverse;  // null: no cosines
  const T* gain;     // null: 1
  void* to;
  bool narrow;  // the result has the element type, not the statistics' type
  bool wide;    // rows can be read and written four numbers at a time
  int64_t rows;
  int d, width;  // how many numbers a row has, and how many of the result are wanted
};

// The combinations of formulas, each in ascending order, that have their own kernels: those of
// MoCo, CLIP and NT-Xent, SupCon, multi-similarity, hard negatives, SigLIP. See Formulas in
// pairs.cuh.
constexpr int kSpecialIds = 4;  // with more, a tile would not fit in shared memory on all chips
enum class Special {
  NONE,
  LOG,               // kLse
  LOG_AND_SUM,       // kLse, kId
  LOG_AND_SUMS,      // kLse, kOne, kId
  TWO_LOGS,          // kLse, kLse
  TWO_LOGS_AND_SUM,  // kLse, kLse, kId
  SUM_AND_SOFTPLUS,  // kId, kSoftplus
};

}  // namespace contrastloss::cuda
