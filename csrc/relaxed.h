// The comparators of a relaxed sorting network, shared by C++ and CUDA. No torch, no Python.
//
// A comparator (a, b) with delta = x_b - x_a and w = F(beta delta) applies the symmetric matrix W
//
//   x_a' = x_b - w delta,   x_b' = x_a + w delta
//
// to the values of its two wires.
#pragma once

#include "channel.h"
#include "problem.h"

namespace contrastloss {

// w = F(beta delta), and its derivatives with respect to delta and beta.
template <class T, Swap S, class Math = StdMath>
struct Relaxed {
  T beta, art_lambda;

  CL_HD T weight(T delta) const {
    const T v = beta * delta;
    if (S == Swap::CAUCHY) return Math::atan(v) * T(0.31830988618379067) + T(0.5);
    if (S == Swap::LOGISTIC) return sigmoid<T, Math>(v);
    if (S == Swap::LOGISTIC_PHI) return sigmoid<T, Math>(v * damping(delta));
    if (S == Swap::GAUSSIAN) return T(0.5) * ::std::erfc(v * T(-0.70710678118654752));
    if (S == Swap::RECIPROCAL) return T(0.5) * (v / (T(2) + ::std::fabs(v)) + T(1));
    const T size = ::std::fabs(v), far = size < T(0.25) ? T(0.25) : size;
    const T rest = T(1) / (T(16) * far);
    return size <= T(0.25) ? v + T(0.5) : v > T(0) ? T(1) - rest : rest;
  }

  CL_HD void slopes(T delta, T w, T& by_delta, T& by_beta) const {
    const T f = density(delta, w);
    by_delta = f * beta;
    by_beta = f * delta;
    if (S != Swap::LOGISTIC_PHI) return;
    const T damped = damping(delta), size = ::std::fabs(delta);
    by_delta *= damped * (T(1) - art_lambda * size / (size + eps()));
    by_beta *= damped;
  }

 private:
  // F'(v); for LOGISTIC_PHI, the derivative with respect to the damped argument
  CL_HD T density(T delta, T w) const {
    const T v = beta * delta;
    if (S == Swap::CAUCHY) return T(0.31830988618379067) / (T(1) + v * v);
    if (S == Swap::LOGISTIC || S == Swap::LOGISTIC_PHI) return w * (T(1) - w);
    if (S == Swap::GAUSSIAN) return T(0.39894228040143268) * Math::exp(v * v * T(-0.5));
    const T far = T(2) + ::std::fabs(v);
    if (S == Swap::RECIPROCAL) return T(1) / (far * far);
    return ::std::fabs(v) <= T(0.25) ? T(1) : T(1) / (T(16) * v * v);
  }

  CL_HD static T eps() { return T(1e-10); }
  CL_HD T damping(T delta) const { return ::std::pow(::std::fabs(delta) + eps(), -art_lambda); }
};

}  // namespace contrastloss
