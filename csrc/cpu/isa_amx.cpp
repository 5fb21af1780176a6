// The engine for AMX: bf16 products in tile registers, everything else as in the AVX-512 engine.
#include "isa_begin.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifdef __clang__
#pragma clang attribute push(                                                                 \
    __attribute__((                                                                           \
        target("amx-tile,amx-bf16,avx512bf16,avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,avx512bf16,avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
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
// these need the parts above, which all engines have
#include "amx.h"
#include "bf16_routines.h"

// Whether the CPU has AMX and the operating system grants the tile registers, which is asked once
// per process.
bool granted() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const unsigned tile = 1u << 24, bf16 = 1u << 22;
  if ((d & tile) == 0 || (d & bf16) == 0 || !avx512_engine.supported()) return false;
  if (!__builtin_cpu_supports("avx512bf16")) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool supported() {
  static const bool answer = granted();
  return answer;
}
}  // namespace

const Engine amx_engine = {"amx", supported, true, Bf16Routines<AmxProducts, avx512_engine>::all(),
                           &avx512_f64};
}  // namespace contrastloss::cpu

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
