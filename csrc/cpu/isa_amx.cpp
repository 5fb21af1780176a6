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
// amx.h needs the parts above, which all engines have
#include "amx.h"

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

// Whether rows are multiplied in bf16, without division by their norms: see Norms in call.h.
bool packed_as_they_are(const Problem<float>& problem) {
  return problem.x.rounded == Element::BF16 && !problem.x_norm;
}

template <bool BACKWARD>
void run(const Problem<float>& problem, int threads, Parallel parallel) {
  if (packed_as_they_are(problem)) {
    run_problem<float, AmxProducts, BACKWARD>(problem, threads, parallel);
  } else if (BACKWARD) {
    avx512_engine.f32.backward(problem, threads, parallel);
  } else {
    avx512_engine.f32.forward(problem, threads, parallel);
  }
}
template <bool BACKWARD>
void run_strip(const Problem<float>& problem, const Strip<float>& strip) {
  if (packed_as_they_are(problem)) {
    run_strip<float, AmxProducts, BACKWARD>(problem, strip);
  } else if (BACKWARD) {
    avx512_engine.f32.strip_backward(problem, strip);
  } else {
    avx512_engine.f32.strip_forward(problem, strip);
  }
}

void topk(const Problem<float>& problem, const Selection<float>& wanted, int threads,
          Parallel parallel) {
  if (packed_as_they_are(problem)) {
    run_topk<float, AmxProducts>(problem, wanted, threads, parallel);
  } else {
    avx512_engine.f32.topk(problem, wanted, threads, parallel);
  }
}
}  // namespace

const Engine amx_engine = {
    "amx",
    supported,
    true,
    {run<false>, run<true>, run_strip<false>, run_strip<true>, merge_rows<float>, topk,
     gather<float>, gather_backward<float>, sort_network<float, false>, sort_network<float, true>,
     inverse_norms<float>, remove_radial<float>},
    routines<double, VectorProducts<double>>(),
};
}  // namespace contrastloss::cpu

#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
