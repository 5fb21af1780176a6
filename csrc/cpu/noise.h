// Gumbel noise of pairs, identical to the last bit on every backend. It repeats `gumbel` of
// contrastloss/backends/reference/noise.py operation by operation. Included once per instruction
// set.

struct Noise {
  static constexpr int64_t LANES = kVectorBytes / 4;
  typedef float Float __attribute__((vector_size(kVectorBytes), may_alias));
  typedef int32_t Int __attribute__((vector_size(kVectorBytes), may_alias));
  typedef uint32_t Bits __attribute__((vector_size(kVectorBytes), may_alias));

  // The noise of row i and columns [j0, j0 + n); `out` has room for whole vectors.
  static void row(const uint32_t* row_keys, int64_t i, const uint32_t* col_keys, int64_t j0,
                  int64_t n, float* out) {
    const Bits first = row_keys[2 * i] - Bits{}, second = row_keys[2 * i + 1] - Bits{};
    for (int64_t j = 0; j < n; j += LANES) {
      uint32_t words[2 * LANES] = {};
      const int64_t count = n - j < LANES ? n - j : LANES;
      __builtin_memcpy(words, col_keys + 2 * (j0 + j), static_cast<size_t>(8 * count));
      Bits a, b;
      for (int64_t l = 0; l < LANES; ++l) a[l] = words[2 * l], b[l] = words[2 * l + 1];
      const Float g = gumbel(mixed(mixed(first + a) ^ (second + b)));
      __builtin_memcpy(out + j, &g, sizeof(g));
    }
  }

 private:
  // Keeps a product out of fused multiply-adds, which round once where two roundings are required.
  static CL_INLINE Float alone(Float v) {
#if defined(__x86_64__)
    asm("" : "+x"(v));
#endif
    return v;
  }

  static CL_INLINE Bits mixed(Bits v) {
    v = (v ^ (v >> 16)) * 0x21f0aaadu;
    v = (v ^ (v >> 15)) * 0xd35a2d97u;
    return v ^ (v >> 15);
  }

  static CL_INLINE Float gumbel(Bits h) {
    const Int low = reinterpret_cast<Int>(h) >= 0;
    const Float w = unit_interval(low ? h : ~h);
    const Float exponential = low ? artanh2(w / (2.0f - w)) : -log(w);
    return -log(exponential);
  }

  // (h + 1/2) / 2^32 for h < 2^31
  static CL_INLINE Float unit_interval(Bits h) {
    const Float high = __builtin_convertvector(reinterpret_cast<Int>(h >> 16), Float);
    const Float rest = __builtin_convertvector(reinterpret_cast<Int>(h & 0xffffu), Float);
    return (high * 65536.0f + rest + 0.5f) * 0x1p-32f;
  }

  // log((1 + z) / (1 - z)) for |z| <= 1/3
  static CL_INLINE Float artanh2(Float z) {
    const Float z2 = z * z;
    Float p = 1.0f / 13 - Float{};
#pragma GCC unroll 6
    for (int k = 11; k >= 1; k -= 2) p = alone(p * z2) + 1.0f / static_cast<float>(k);
    return 2.0f * (z * p);
  }

  // for a positive normal number x = 2^e m, m in [sqrt(1/2), sqrt(2))
  static CL_INLINE Float log(Float x) {
    const Int bits = reinterpret_cast<Int>(x);
    const Int e = (bits - 0x3f3504f3) >> 23;
    const Float m = reinterpret_cast<Float>(bits - (e << 23));
    return alone(__builtin_convertvector(e, Float) * 0.693147182f) +
           artanh2((m - 1.0f) / (m + 1.0f));
  }
};
