// The exponentials of logits, relative to a top: e^z = e^(z - top) e^top.
//
// A tile whose logits are near one top of moderate size takes the fast form: with a shift near
// top log2(e), a power is one multiply-add and one instruction, and what rounding does to the shift
// is a factor that all powers share. Subtracting first is exact for logits of any size, and takes
// an instruction more; the compiler must not merge it with the product in a logit, whose rounding
// the top has, too.
#pragma once

#include <cuda/instructions.h>

namespace contrastloss::cuda {

template <class T>
struct Power {
  static constexpr T kRate = 1;
  // the largest top of the fast form, which does not round its products as logits are rounded
  static constexpr T kLargest = 65536;

  // e^(z - top).
  __device__ __forceinline__ static T of(T z, T top) { return ::std::exp(__dsub_rn(z, top)); }
  // The fast form, where `rate` includes kRate: e^(rate z - top(shift)) / rest(shift).
  __device__ __forceinline__ static T fast(T z, T rate, T shift) {
    return ::std::exp(rate * z - shift);
  }
  __device__ __forceinline__ static T shift(T top) { return top; }
  __device__ __forceinline__ static T top(T shift) { return shift; }
  __device__ __forceinline__ static T rest(T) { return 1; }
};

template <>
struct Power<float> {
  static constexpr float kRate = 1.44269504f;  // log2(e), rounded
  static constexpr float kLargest = 65536;

  __device__ __forceinline__ static float of(float z, float top) {
    return power_of_two(__fsub_rn(z, top) * kRate);
  }
  __device__ __forceinline__ static float fast(float z, float rate, float shift) {
    return power_of_two(::std::fma(z, rate, -shift));
  }
  __device__ __forceinline__ static float shift(float top) { return top * kRate; }
  __device__ __forceinline__ static float top(float shift) { return shift * 0.6931472f; }
  __device__ __forceinline__ static float rest(float shift) {
    return power_of_two(::std::fma(-top(shift), kRate, shift));
  }
};

}  // namespace contrastloss::cuda
