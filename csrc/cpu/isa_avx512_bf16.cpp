// The engine for AVX-512 with AVX512-BF16: VDPBF16PS multiplies bf16, everything else is as in the
// AVX-512 engine.
#include "isa_begin.h"

#include <immintrin.h>

#ifdef __clang__
#pragma clang attribute push(                                                          \
    __attribute__((target("avx512bf16,avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512bf16,avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#pragma GCC target("prefer-vector-width=512")
#endif

#include "../candidate.h"
#include "../channel.h"
#include "../pair.h"
#include "../relaxed.h"

namespace contrastloss::cpu {
namespace {
constexpr int kVectorBytes = 64, kMicroRows = 12, kTileRows = 192;
#include "isa.h"

// Two bf16 numbers, the first in the low half.
using Pair = uint32_t;

template <>
struct Product<Pair> {
  using Acc = float;
  static constexpr int LANES = kVectorBytes / sizeof(Pair);
  typedef Pair Vec __attribute__((vector_size(kVectorBytes), aligned(sizeof(Pair)), may_alias));
  static CL_INLINE Vec load(const Pair* p) { return *reinterpret_cast<const Vec*>(p); }
  static CL_INLINE Vec broadcast(const Pair* p) { return *p - Vec{}; }
  static CL_INLINE __m512 fma(__m512 acc, Vec a, Vec b) {
    return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b);
  }
};
// these need the parts above, which all engines have
#include "pair_products.h"
#include "bf16_routines.h"

bool supported() { return avx512_engine.supported() && __builtin_cpu_supports("avx512bf16"); }
}  // namespace

const Engine avx512_bf16_engine = {"avx512_bf16", supported, true,
                                   Bf16Routines<PairProducts, avx512_engine>::all(), &avx512_f64};
}  // namespace contrastloss::cpu

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
