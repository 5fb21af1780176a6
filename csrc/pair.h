// The tests and the log-weight terms of one pair, shared by C++ and CUDA. No torch, no Python.
#pragma once

#include "channel.h"
#include "problem.h"

namespace contrastloss {

// All comparisons, as F(enumerator). One is added to Compare, here and in the function below.
#define CL_EACH_COMPARE(F) F(EQ) F(NE) F(LT) F(WITHIN)

// Whether the ids u of a row and v of a column pass a test.
template <Compare OP>
CL_HD bool passes(int64_t u, int64_t v, int64_t width) {
  if (OP == Compare::EQ) return u == v;
  if (OP == Compare::NE) return u != v;
  if (OP == Compare::LT) return u < v;
  // The difference of two int64 may need 65 bits.
  const uint64_t a = static_cast<uint64_t>(u), b = static_cast<uint64_t>(v);
  return width >= 0 && (u > v ? a - b : b - a) <= static_cast<uint64_t>(width);
}
CL_HD bool passes(Compare op, int64_t u, int64_t v, int64_t width) {
  switch (op) {
#define CL_CASE(OP) \
  case Compare::OP: return passes<Compare::OP>(u, v, width);
    CL_EACH_COMPARE(CL_CASE)
#undef CL_CASE
  }
  return false;
}

// The term of two labels.
template <class T>
CL_HD T distance_weight(T coefficient, T a, T b) {
  return coefficient * ::std::log1p(::std::fabs(a - b));
}

// The term of a value with an upper bound; NaN stays NaN.
template <class T>
CL_HD T up_to(T bound, T value) {
  return value <= bound ? T(0) : value > bound ? T(-INFINITY) : value + bound;
}

// The term of t = <m_i, n_j>, of kind FORM, LOG_FORM or AT_MOST.
template <TermKind KIND, class T>
CL_HD T form_weight(T eps, T t) {
  if (KIND == TermKind::FORM) return t;
  if (KIND == TermKind::LOG_FORM) return ::std::log(eps + t);
  return up_to(T(0), t);
}

}  // namespace contrastloss
