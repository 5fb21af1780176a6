// What a call computes, as plain data without torch. Pointers are on the device of the call.
// operands.h builds one Problem per batch item; the engines of csrc/cpu read it, and csrc/cuda
// turns it into kernel parameters.
//
//   s_ij = scale a_i b_j <x_i, y_j> + beta_i + gamma_j
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace contrastloss {

enum class Kind : int { LSE, SUM, EXPECT, MAX };
enum class Compare : int { EQ, NE, LT, WITHIN };
// In the order of TERMS in contrastloss/channel.py.
enum class TermKind : int { ROW, COL, DISTANCE, DIFFERING, FORM, LOG_FORM, AT_MOST, NOT_ABOVE };
enum class Element : int { F64, F32, BF16, F16 };
// In the order of DISTRIBUTIONS in contrastloss/backends/network.py.
enum class Swap : int { CAUCHY, LOGISTIC, LOGISTIC_PHI, GAUSSIAN, RECIPROCAL, OPTIMAL };

// A contiguous rows x cols matrix. Its values are rounded to `rounded` before they are used.
struct Matrix {
  const void* data = nullptr;
  Element element = Element::F32;
  Element rounded = Element::F32;
  int64_t rows = 0, cols = 0;
};

// An integer test on the ids of a pair. Null ids mean the positions.
struct Test {
  Compare op;
  const int64_t* row;
  const int64_t* col;
  int64_t width;
};

// One term of the log-weight, which is a sum.
template <class T>
struct Term {
  TermKind kind;
  const T* row = nullptr;  // u, a label, a bound, or the (M, extent) operand of a form
  const T* col = nullptr;
  T value = 0;
  int64_t extent = 0;
  std::vector<const int64_t*> row_ids, col_ids;  // for DIFFERING

  bool of_rows() const { return kind == TermKind::ROW || kind == TermKind::NOT_ABOVE; }
  bool of_one_axis() const { return of_rows() || kind == TermKind::COL; }
  bool is_form() const { return kind >= TermKind::FORM && kind <= TermKind::AT_MOST; }
};

// The tests (all must pass) and the log-weight terms (summed) that several channels share.
template <class T>
struct Group {
  std::vector<Test> tests;
  std::vector<Term<T>> terms;
};

// A channel with its accumulators. Every array is indexed by position along the channel's own axis.
template <class T>
struct Channel {
  Kind kind;
  int psi = 0;
  bool column = false;  // reduces over rows and returns one value per column
  int group = 0;
  T theta = 1, sign = 1;
  T margin = NAN;  // `relax` of an LSE; NaN if there is none
  const T* shift = nullptr;
  int slot = -1;  // the index of the shift in `Program.shifts` of the axis

  // forward. LSE and EXPECT: sum_j exp(z_j) = sum exp(top), moment = sum_j exp(z_j - top) s_j. SUM:
  // sum. MAX: top, index.
  T* top = nullptr;
  double* sum = nullptr;
  double* moment = nullptr;
  int64_t* index = nullptr;

  // backward. The statistics: mean E, log-sum-exp L, the maximum's index. Their gradients (null:
  // none), and the gradient of the shift.
  const T* mean = nullptr;
  const T* lse = nullptr;
  const int64_t* at = nullptr;
  const T* grad = nullptr;
  const T* grad_lse = nullptr;
  double* dshift = nullptr;

  bool paced() const { return margin == margin; }
  // Whether the logits are s + w, without theta and without a pace.
  bool direct() const { return theta == T(1) && !paced(); }
  bool same_logits(const Channel& c) const {
    return theta == c.theta && (margin == c.margin || (!paced() && !c.paced()));
  }

  // A sum of scores (sign s) or a count.
  bool plain() const { return kind == Kind::SUM && psi <= 1 && shift == nullptr; }
};

// The results of a backward pass; null where no gradient is needed. Gradients are added to dx and
// dy.
template <class T>
struct Sums {
  T* dx = nullptr;
  T* dy = nullptr;
  double* row_bias = nullptr;
  double* col_bias = nullptr;
  double* row_dot = nullptr;  // sum_j G_ij b_j <x_i, y_j>
  double* col_dot = nullptr;  // sum_i G_ij a_i <x_i, y_j>
};

template <class T>
struct Problem {
  Matrix x, y;  // y is x where `symmetric`
  // With cosines: 1 / |x_i| and 1 / |y_j|, if rows are packed as unit vectors. If rows are packed
  // unchanged, a and b include the inverse norms and these are null.
  const T* x_norm = nullptr;
  const T* y_norm = nullptr;
  bool symmetric = false;  // self pairs are dropped
  // Scores, tests and weights are the same for (i, j) and (j, i), and sums may mix both
  // orientations: one visit of a tile above the diagonal also covers the tile below it. Otherwise
  // the tile is visited a second time, transposed.
  bool mirror = false;
  T scale = 1;
  T bound = INFINITY;  // an upper bound of |s_ij|, if one is known
  const T* a = nullptr;
  const T* b = nullptr;
  const T* beta = nullptr;
  const T* gamma = nullptr;
  std::vector<Group<T>> groups;
  std::vector<Channel<T>> channels;
  Sums<T> sums;

  // About how many threads it keeps busy.
  double work() const { return double(x.rows) * double(y.rows) * (double(x.cols) + 32) / 4e5; }

  // Whether a tile needs buffers for logits and weights in addition to its scores.
  bool general() const {
    for (const Group<T>& g : groups)
      if (!g.tests.empty() || !g.terms.empty()) return true;
    for (const Channel<T>& c : channels)
      if (!c.direct()) return true;
    return false;
  }

  // Whether scores differ from the products <x_i, y_j>.
  bool scaled() const { return scale != T(1) || a || b || beta || gamma; }

  // Whether the bound makes it unnecessary to search the range of scores of each tile, in a group
  // without tests and terms.
  bool bounded(T spread) const { return bound <= spread / 2; }

  // Whether each thread may take its own rows against all columns: then every pair is visited from
  // both sides, and no sums along columns are kept.
  bool strips(bool backward) const {
    if (!mirror) return false;
    for (const Channel<T>& c : channels)
      if (backward ? c.dshift != nullptr : c.column) return false;
    return true;
  }

  bool columns_written() const {
    bool any = sums.dy || sums.col_bias || sums.col_dot;
    for (const Channel<T>& c : channels) any |= c.column;
    return any;
  }
};

}  // namespace contrastloss
