// The engine for NEON with bf16 (FEAT_BF16): BFDOT multiplies bf16, everything else is as in the
// NEON engine.
#include "isa_begin.h"

#include <arm_neon.h>
#include <sys/auxv.h>

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("bf16"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+bf16")
#endif

#include "../candidate.h"
#include "../channel.h"
#include "../pair.h"
#include "../relaxed.h"

namespace contrastloss::cpu {
namespace {
constexpr int kVectorBytes = 16, kMicroRows = 12, kTileRows = 192;
#include "isa.h"

// Two bf16 numbers, the first in the low half.
using Pair = uint32_t;

template <>
struct Product<Pair> {
  using Acc = float;
  static constexpr int LANES = kVectorBytes / sizeof(Pair);
  typedef Pair Vec __attribute__((vector_size(kVectorBytes), aligned(sizeof(Pair)), may_alias));
  static CL_INLINE Vec load(const Pair* p) { return *reinterpret_cast<const Vec*>(p); }
  // in the first lane, where BFDOT can take it from
  static CL_INLINE bfloat16x4_t broadcast(const Pair* p) { return vcreate_bf16(*p); }
  static CL_INLINE float32x4_t fma(float32x4_t acc, bfloat16x4_t a, Vec b) {
    return vbfdotq_lane_f32(acc, (bfloat16x8_t)b, a, 0);
  }
};
#include "pair_products.h"
#include "bf16_routines.h"

bool supported() {
  constexpr unsigned long kBf16 = 1ul << 14;  // HWCAP2_BF16, which older headers lack
  return (getauxval(AT_HWCAP2) & kBf16) != 0;
}

}  // namespace

const Engine neon_bf16_engine = {"neon_bf16", supported, true,
                                 Bf16Routines<PairProducts, neon_engine>::all(), &neon_f64};
}  // namespace contrastloss::cpu

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
