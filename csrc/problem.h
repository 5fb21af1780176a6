// What a call asks for: plain data, no torch, its pointers on whatever device the call is. Built
// once per batch item by operands.h, read by the engines of csrc/cpu and turned into kernels'
// parameters by csrc/cuda.
//
//   s_ij = scale a_i b_j <x_i, y_j> + beta_i + gamma_j
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace contrastloss {

enum class Kind : int { LSE, SUM, EXPECT, MAX };
enum class Compare : int { EQ, NE, LT, WITHIN };
enum class TermKind : int { ROW, COL, DISTANCE, DIFFERING, FORM, LOG_FORM, AT_MOST };
enum class Element : int { F64, F32, BF16, F16 };
// In the order of DISTRIBUTIONS in contrastloss/backends/network.py.
enum class Swap : int { CAUCHY, LOGISTIC, LOGISTIC_PHI, GAUSSIAN, RECIPROCAL, OPTIMAL };

// A contiguous rows x cols matrix whose values are rounded to `rounded` before they are used.
struct Matrix {
  const void* data = nullptr;
  Element element = Element::F32;
  Element rounded = Element::F32;
  int64_t rows = 0, cols = 0;
};

// An integer test on the ids of a pair; null ids are the positions themselves.
struct Test {
  Compare op;
  const int64_t* row;
  const int64_t* col;
  int64_t width;
};

// A summand of the log-weight.
template <class T>
struct Term {
  TermKind kind;
  const T* row = nullptr;  // u, a label, or the (M, extent) operand of a form
  const T* col = nullptr;
  T value = 0;
  int64_t extent = 0;
  std::vector<const int64_t*> row_ids, col_ids;  // of DIFFERING
};

// Pairs that several channels share: a conjunction of tests and a sum of terms.
template <class T>
struct Group {
  std::vector<Test> tests;
  std::vector<Term<T>> terms;
};

// A channel with its state. Every array is indexed by position along the channel's own axis.
template <class T>
struct Channel {
  Kind kind;
  int psi = 0;
  bool column = false;  // reduces rows, returns a value per column
  int group = 0;
  T theta = 1, sign = 1;
  T margin = NAN;  // of an LSE: NaN for none
  const T* shift = nullptr;
  int slot = -1;  // which of the axis' shifts that is, in the order of `Program.shifts`

  // forward: sum exp(z) = sum exp(top), moment = sum exp(z - top) s; of MAX top and index
  T* top = nullptr;
  double* sum = nullptr;
  double* moment = nullptr;
  int64_t* index = nullptr;

  // backward: the statistics (E, or V's index; L), their gradients (null: none), d shift
  const T* mean = nullptr;
  const T* lse = nullptr;
  const int64_t* at = nullptr;
  const T* grad = nullptr;
  const T* grad_lse = nullptr;
  double* dshift = nullptr;

  bool paced() const { return margin == margin; }
  // Whether its logits are the scores and the weights.
  bool direct() const { return theta == T(1) && !paced(); }
  bool same_logits(const Channel& c) const {
    return theta == c.theta && (margin == c.margin || (!paced() && !c.paced()));
  }

  // A sum of scores or a count: sign s, or 1.
  bool plain() const { return kind == Kind::SUM && psi <= 1 && shift == nullptr; }
};

// A backward's results; null where no gradient was asked for. dx and dy are accumulated into.
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
  // With cosines, 1 / |x_i| and 1 / |y_j| where rows are packed as unit vectors. Where they are
  // packed as they are, the norms are part of a and b, and these are null.
  const T* x_norm = nullptr;
  const T* y_norm = nullptr;
  bool symmetric = false;  // self pairs are dropped
  // scores and tests are the same for (i, j) and (j, i), and so may be the sums: a tile above the
  // diagonal then serves both at once. Otherwise it is visited once more, transposed.
  bool mirror = false;
  T scale = 1;
  T bound = INFINITY;  // of |s_ij|, where it is known
  const T* a = nullptr;
  const T* b = nullptr;
  const T* beta = nullptr;
  const T* gamma = nullptr;
  std::vector<Group<T>> groups;
  std::vector<Channel<T>> channels;
  Sums<T> sums;

  // Whether a tile needs logits and weights of its own beside its scores.
  bool general() const {
    for (const Group<T>& g : groups)
      if (!g.tests.empty() || !g.terms.empty()) return true;
    for (const Channel<T>& c : channels)
      if (!c.direct()) return true;
    return false;
  }

  // Whether scores are anything but the products themselves.
  bool scaled() const { return scale != T(1) || a || b || beta || gamma; }

  // Whether every tile of a group without tests and terms may skip the search for its range.
  bool bounded(T spread) const { return bound <= spread / 2; }

  // Whether rows times all columns, each thread with rows of its own, is a way to the same sums:
  // every pair is met from both sides, and no sum along columns is kept.
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
