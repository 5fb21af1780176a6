// Scalar functions written so that loops over them vectorise: no calls, no branches. Included once
// per instruction set. float errors are below 2 ulp; double goes to the C library.

struct VecMath {
  // e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2; `minus` is subtracted from the result
  // where it does not cancel.
  static CL_INLINE float exp2n(float x, float& rest) {
    const float shifted =
        x * 1.44269504f + 12582912.0f;  // 1.5 2^23: the integer is in the low bits
    const float n = shifted - 12582912.0f;
    const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    rest = p * r * r + r;  // e^r - 1
    const uint32_t bits = (__builtin_bit_cast(uint32_t, shifted) << 23) + 0x3f800000u;
    return __builtin_bit_cast(float, bits);
  }
  static CL_INLINE float exp(float x) {
    float rest;
    const float power = exp2n(x, rest);
    float e = power + power * rest;
    e = x < -87.3f ? 0.0f : e;
    return x > 88.3f ? __builtin_inff() : e;
  }
  // where |x| < 87 is known
  static CL_INLINE float exp_bounded(float x) {
    float rest;
    const float power = exp2n(x, rest);
    return power + power * rest;
  }
  static CL_INLINE float expm1(float x) {
    float rest;
    const float power = exp2n(x, rest);
    float e = (power - 1.0f) + power * rest;
    e = x < -87.3f ? -1.0f : e;
    return x > 88.3f ? __builtin_inff() : e;
  }
  // log(1 + t) = 2 artanh(t / (2 + t)) for t in [0, 1]
  static CL_INLINE float log1p(float t) {
    const float q = t / (2.0f + t), q2 = q * q;
    float p = 1.0f / 15;
    p = p * q2 + 1.0f / 13;
    p = p * q2 + 1.0f / 11;
    p = p * q2 + 1.0f / 9;
    p = p * q2 + 1.0f / 7;
    p = p * q2 + 1.0f / 5;
    p = p * q2 + 1.0f / 3;
    return 2.0f * q + 2.0f * q * q2 * p;
  }
  static CL_INLINE double exp(double x) { return __builtin_exp(x); }
  static CL_INLINE double exp_bounded(double x) { return __builtin_exp(x); }
  static CL_INLINE double expm1(double x) { return __builtin_expm1(x); }
  static CL_INLINE double log1p(double t) { return __builtin_log1p(t); }
};

// How far scores of one tile may spread and still share one shift: e^-kSpread stays far above the
// smallest normal number, so no term that matters is lost.
template <class T>
constexpr T kSpread = sizeof(T) == 8 ? T(300) : T(40);
