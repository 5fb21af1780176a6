// The exponentials of logits, relative to a top: e^z = power(z) e^natural(top).
//
// In fp32, tops count in powers of two and are whole numbers. Then a power is one multiply-add and
// one instruction, e^z = 2^(z log2(e) - top) 2^top, and states with different tops are merged
// without rounding.
#pragma once

#include <cuda/instructions.h>

#include <cstring>

namespace contrastloss::cuda {

template <class T>
struct Power {
  static constexpr T kRate = 1;

  // e^(rate z) without its top; rates include kRate.
  __device__ __forceinline__ static T of(T z, T rate, T top) { return ::std::exp(rate * z - top); }
  // The top of a logit, -inf for -inf.
  __device__ __forceinline__ static T top(T z) { return z; }
  // The logarithm of what a top stands for, less z.
  __device__ __forceinline__ static T less(T top, T z) { return top - z; }
  // The factor between two tops, at most 1.
  __device__ __forceinline__ static T between(T from, T to) { return ::std::exp(from - to); }
};

template <>
struct Power<float> {
  static constexpr float kRate = 1.44269504f;  // log2(e), rounded
  // 1 / kRate in two parts: were it ln(2), large logits and their tops would not agree
  static constexpr float kBack = 0.6931472f, kBackRest = 7.348693e-09f;

  __device__ __forceinline__ static float of(float z, float rate, float top) {
    return power_of_two(::std::fma(z, rate, -top));
  }
  __device__ __forceinline__ static float top(float z) { return ::std::ceil(z * kRate); }
  __device__ __forceinline__ static float less(float top, float z) {
    return ::std::fma(top, kBack, -z) + top * kBackRest;
  }
  __device__ __forceinline__ static float between(float from, float to) {
    // whole, so that the power has this exponent and no fraction
    const float t = from - to;
    const int bits = (127 + static_cast<int>(t >= -126.0f ? t : -126.0f)) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return t >= -126.0f ? power : 0.0f;
  }
};

}  // namespace contrastloss::cuda
