// The maths of a channel, shared by C++ and CUDA. No torch, no Python.
//
//   SUM      sum_j e^w psi(u),   u = sign (s - shift)
//   LSE      log sum_j exp(z),   z = theta s + w, accumulated as (max, sum)
//
// psi and dpsi take exp, expm1 and log1p from the template argument `Math`: the C library by
// default, polynomials where loops must vectorise.
#pragma once

#include <cmath>

#ifdef __CUDACC__
#define CL_HD __host__ __device__ __forceinline__
#else
#define CL_HD inline __attribute__((always_inline))
#endif

namespace contrastloss {

// All psi, as F(enumerator, name), in the order of PSI in contrastloss/channel.py. One is added
// here, in psi and in dpsi.
#define CL_EACH_PSI(F)    \
  F(One, "one")           \
  F(Id, "id")             \
  F(Square, "square")     \
  F(Relu, "relu")         \
  F(Relu2, "relu2")       \
  F(Softplus, "softplus") \
  F(Focal, "focal")       \
  F(Step, "step")

#define CL_ENUMERATOR(P, name) P,
enum class Psi : int { CL_EACH_PSI(CL_ENUMERATOR) };
#undef CL_ENUMERATOR

struct StdMath {
  template <class T>
  static CL_HD T exp(T u) {
    return ::std::exp(u);
  }
  template <class T>
  static CL_HD T expm1(T u) {
    return ::std::expm1(u);
  }
  template <class T>
  static CL_HD T atan(T u) {
    return ::std::atan(u);
  }
  // log(1 + t) for t in [0, 1]
  template <class T>
  static CL_HD T log1p(T t) {
    return ::std::log1p(t);
  }
};

// max(u, 0); NaN stays NaN.
template <class T>
CL_HD T relu(T u) {
  return u < T(0) ? T(0) : u;
}

// 1 / (1 + e^-u) without overflow at either end.
template <class T, class Math = StdMath>
CL_HD T sigmoid(T u) {
  const T e = Math::exp(-::std::fabs(u));
  const T below = u < T(0) ? T(1) : T(0);  // no branch, so that loops vectorise
  return (below * e + (T(1) - below)) / (T(1) + e);
}

template <Psi P, class T, class Math = StdMath>
CL_HD T psi(T u) {
  if (P == Psi::One) return T(1);
  if (P == Psi::Id) return u;
  if (P == Psi::Square) return u * u;
  if (P == Psi::Relu) return relu(u);
  if (P == Psi::Relu2) return relu(u) * relu(u);
  // log(1 + e^u) = max(u, 0) + log(1 + e^-|u|)
  if (P == Psi::Softplus) return relu(u) + Math::log1p(Math::exp(-::std::fabs(u)));
  // (1 - e^u) u
  if (P == Psi::Focal) return -Math::expm1(u) * u;
  return u > T(0) ? T(1) : u <= T(0) ? T(0) : u;
}

// Whether the slope is not 0 everywhere.
template <Psi P>
constexpr bool sloped() {
  return P != Psi::One && P != Psi::Step;
}

template <Psi P, class T, class Math = StdMath>
CL_HD T dpsi(T u) {
  if (P == Psi::Id) return T(1);
  if (P == Psi::Square) return T(2) * u;
  if (P == Psi::Relu) return u > T(0) ? T(1) : T(0);
  if (P == Psi::Relu2) return T(2) * relu(u);
  if (P == Psi::Softplus) return sigmoid<T, Math>(u);
  // 1 - e^u - u e^u
  if (P == Psi::Focal) return -Math::expm1(u) - u * Math::exp(u);
  return T(0);
}

// The pace of a relaxed exponent with margin m: [s + m]_+ or, where theta is negative,
// [1 + m - s]_+; NaN stays NaN.
template <class T>
CL_HD T pace(T s, T m, bool negative) {
  return relu((negative ? T(1) - s : s) + m);
}

// A running log-sum-exp, log(sum) + max. The shift is 0 until a value has been added, so an empty
// set gives -inf and never NaN.
template <class T>
struct LogSum {
  T max = -INFINITY;
  T sum = 0;

  static CL_HD T shift(T max) { return max == T(-INFINITY) ? T(0) : max; }

  // sum_k exp(z_k) = part * exp(top)
  CL_HD void merge(T top, T part) {
    const T m = top > max ? top : max;
    sum = sum * ::std::exp(max - shift(m)) + part * ::std::exp(top - shift(m));
    max = m;
  }
  CL_HD void add(T z) { merge(z, z == T(-INFINITY) ? T(0) : T(1)); }
  CL_HD T value() const { return sum == T(0) ? T(-INFINITY) : ::std::log(sum) + max; }
};

}  // namespace contrastloss
