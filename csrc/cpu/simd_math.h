// Scalar functions without calls or branches, so that loops over them vectorise. Included once per
// instruction set. Errors are below 2 ulp.

struct VecMath {
  // e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2; `rest` is e^r - 1. The integer n is in the
  // low bits of x / ln 2 + 1.5 2^(mantissa bits).
  static CL_INLINE float exp2n(float x, float& rest) {
    const float shifted = x * 1.44269504f + 12582912.0f;
    const float n = shifted - 12582912.0f;
    const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    rest = p * r * r + r;
    const uint32_t bits = (__builtin_bit_cast(uint32_t, shifted) << 23) + 0x3f800000u;
    return __builtin_bit_cast(float, bits);
  }
  // Taylor series with a truncation error below 1e-17.
  static CL_INLINE double exp2n(double x, double& rest) {
    const double shifted = x * 1.4426950408889634 + 6755399441055744.0;
    const double n = shifted - 6755399441055744.0;
    const double r = (x - n * 0x1.62e42fefa3800p-1) - n * 0x1.ef35793c76730p-45;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    rest = p * r * r + r;
    const uint64_t bits = (__builtin_bit_cast(uint64_t, shifted) << 52) + 0x3ff0000000000000u;
    return __builtin_bit_cast(double, bits);
  }
  // beyond these bounds e^x is 0 (denormal numbers count as 0) or infinite
  static CL_INLINE bool vanishes(float x) { return x < -87.3f; }
  static CL_INLINE bool vanishes(double x) { return x < -708.3; }
  static CL_INLINE bool overflows(float x) { return x > 88.3f; }
  static CL_INLINE bool overflows(double x) { return x > 709.0; }

  template <class T>
  static CL_INLINE T exp(T x) {
    T rest;
    const T power = exp2n(x, rest);
    T e = power + power * rest;
    e = vanishes(x) ? T(0) : e;
    return overflows(x) ? T(__builtin_inff()) : e;
  }
  // for x where e^x is a normal number
  template <class T>
  static CL_INLINE T exp_bounded(T x) {
    T rest;
    const T power = exp2n(x, rest);
    return power + power * rest;
  }
  template <class T>
  static CL_INLINE T expm1(T x) {
    T rest;
    const T power = exp2n(x, rest);
    T e = (power - T(1)) + power * rest;
    e = vanishes(x) ? T(-1) : e;
    return overflows(x) ? T(__builtin_inff()) : e;
  }
  // Above tan(pi / 8) the argument is reduced by pi / 4, above tan(3 pi / 8) by pi / 2. The rest is
  // a polynomial fit to (atan(t) / t - 1) / t^2 at Chebyshev points, with relative error below
  // 3e-9.
  static CL_INLINE float atan(float x) {
    const float size = x < 0.0f ? -x : x;
    const bool middle = size > 0.41421356f, steep = size > 2.41421356f;
    const float above = steep ? -1.0f : middle ? size - 1.0f : size;
    const float below = steep ? size : middle ? size + 1.0f : 1.0f;
    const float angle = steep ? 1.57079633f : middle ? 0.785398163f : 0.0f;
    const float t = above / below, z = t * t;
    float p = -0.06451928f;
    p = p * z + 0.10743731f;
    p = p * z - 0.14263956f;
    p = p * z + 0.1999954f;
    p = p * z - 0.33333332f;
    const float found = angle + (t + t * z * p);
    return x < 0.0f ? -found : found;
  }
  static CL_INLINE double atan(double x) { return std::atan(x); }
  // log(1 + t) = 2 artanh(q) = 2 (q + q^3 / 3 + q^5 / 5 + ...), q = t / (2 + t), for t in [0, 1]
  template <class T>
  static CL_INLINE T log1p(T t) {
    const T q = t / (T(2) + t), q2 = q * q;
    constexpr int last = sizeof(T) == 8 ? 33 : 15;
    T p = T(1) / last;
#pragma GCC unroll 16
    for (int k = last - 2; k >= 3; k -= 2) p = p * q2 + T(1) / T(k);
    return T(2) * q + T(2) * q * q2 * p;
  }
};

// How far the logits of one tile may spread and still share one shift: e^-kSpread is far above the
// smallest normal number, so no term that matters is lost.
template <class T>
constexpr T kSpread = sizeof(T) == 8 ? T(300) : T(40);
