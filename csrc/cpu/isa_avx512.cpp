// The engine for AVX-512.
#include "isa_begin.h"

#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
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

bool supported() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}
}  // namespace

const Routines<double> avx512_f64 = routines<double, VectorProducts<double>>();
const Engine avx512_engine = {"avx512", supported, false, routines<float, VectorProducts<float>>(),
                              &avx512_f64};
}  // namespace contrastloss::cpu

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
