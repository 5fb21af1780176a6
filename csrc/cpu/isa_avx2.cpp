// The engine for AVX2.
#include "isa_begin.h"

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#include "../candidate.h"
#include "../channel.h"
#include "../pair.h"
#include "../relaxed.h"

namespace contrastloss::cpu {
namespace {
constexpr int kVectorBytes = 32, kMicroRows = 6, kTileRows = 192;
#include "isa.h"

bool supported() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}
}  // namespace

const Routines<double> avx2_f64 = routines<double, VectorProducts<double>>();
const Engine avx2_engine = {"avx2", supported, false, routines<float, VectorProducts<float>>(),
                            &avx2_f64};
}  // namespace contrastloss::cpu

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
