// Loads rows of a matrix in the statistics' dtype or in bf16, rounded as the call asks. Included
// once per instruction set.

// What rows and columns are packed for.
enum class Use { SCORES, GRADIENTS, BOTH };

inline float from_bf16(uint16_t v) { return __builtin_bit_cast(float, uint32_t(v) << 16); }

// Rounded to nearest even; NaN stays NaN.
CL_INLINE uint32_t to_bf16(float v) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, v);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return v != v ? 0x7fc0u : rounded;
}

// No step has a denormal fp32 number: the thread may count them as 0 (run_gradients does on arm64).
inline float from_f16(uint16_t v) {
  constexpr uint32_t kBias = 112u << 23, kLeast = 113u << 23;  // fp32's bias less fp16's; 2^-14
  const uint32_t sign = uint32_t(v & 0x8000u) << 16, body = v & 0x7fffu, shifted = body << 13;
  // a subnormal number: as the fraction of 2^-14 (1 + fraction), less 2^-14
  const float subnormal =
      __builtin_bit_cast(float, shifted | kLeast) - __builtin_bit_cast(float, kLeast);
  const uint32_t special = 0x7f800000u | shifted;
  const uint32_t bits = body >= 0x7c00u   ? special
                        : body >= 0x0400u ? shifted + kBias
                                          : __builtin_bit_cast(uint32_t, subnormal);
  return __builtin_bit_cast(float, sign | bits);
}

inline float round_f16(float v) {
  const float x = std::fabs(v);
  if (!(x < 65520.0f)) return x == x ? std::copysign(INFINITY, v) : v;
  // one ulp of f16 at x, at least that of subnormal numbers
  uint32_t e = __builtin_bit_cast(uint32_t, x) & 0x7f800000u;
  e = e < 0x38800000u ? 0x38800000u : e;
  const float magic = __builtin_bit_cast(float, e + (13u << 23));
  return std::copysign((x + magic) - magic, v);
}

// Features [from, from + d) of row i.
template <class T>
inline void load_part(const Matrix& x, int64_t i, int64_t from, int64_t d, T* out) {
  const int64_t first = i * x.cols + from;
  switch (x.element) {
    case Element::F64:
      for (int64_t k = 0; k < d; ++k) out[k] = T(static_cast<const double*>(x.data)[first + k]);
      break;
    case Element::F32:
      for (int64_t k = 0; k < d; ++k) out[k] = T(static_cast<const float*>(x.data)[first + k]);
      break;
    case Element::BF16:
      for (int64_t k = 0; k < d; ++k)
        out[k] = T(from_bf16(static_cast<const uint16_t*>(x.data)[first + k]));
      break;
    case Element::F16:
      for (int64_t k = 0; k < d; ++k)
        out[k] = T(from_f16(static_cast<const uint16_t*>(x.data)[first + k]));
      break;
  }
  if (x.rounded == x.element) return;
  if (x.rounded == Element::F32)  // only F64 needs it; narrower types are exact in F32
    for (int64_t k = 0; k < d; ++k) out[k] = T(float(out[k]));
  if (x.rounded == Element::BF16)
    for (int64_t k = 0; k < d; ++k)
      out[k] = T(from_bf16(static_cast<uint16_t>(to_bf16(float(out[k])))));
  if (x.rounded == Element::F16)
    for (int64_t k = 0; k < d; ++k) out[k] = T(round_f16(float(out[k])));
}

template <class T>
inline void load_row(const Matrix& x, int64_t i, T* out) {
  load_part(x, i, 0, x.cols, out);
}

// The rows themselves if they need no conversion; otherwise null.
template <class T>
inline const T* as_is(const Matrix& x) {
  const Element own = sizeof(T) == 8 ? Element::F64 : Element::F32;
  return x.element == own && x.rounded == own ? static_cast<const T*>(x.data) : nullptr;
}
