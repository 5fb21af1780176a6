// The engine for NEON, which every 64-bit ARM CPU has. Of its 32 vector registers, 24 hold sums.
#include "isa_begin.h"

#include "../candidate.h"
#include "../channel.h"
#include "../pair.h"
#include "../relaxed.h"

namespace contrastloss::cpu {
namespace {
constexpr int kVectorBytes = 16, kMicroRows = 12, kTileRows = 192;
#include "isa.h"

bool supported() { return true; }
}  // namespace

const Routines<double> neon_f64 = routines<double, VectorProducts<double>>();
const Engine neon_engine = {"neon", supported, false, routines<float, VectorProducts<float>>(),
                            &neon_f64};
}  // namespace contrastloss::cpu
