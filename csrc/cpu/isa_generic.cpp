// The generic engine, for any CPU.
#include "isa_begin.h"

#include "../candidate.h"
#include "../channel.h"
#include "../pair.h"
#include "../relaxed.h"

namespace contrastloss::cpu {
namespace {
constexpr int kVectorBytes = 16, kMicroRows = 3, kTileRows = 192;
#include "isa.h"

bool supported() { return true; }
}  // namespace

const Routines<double> generic_f64 = routines<double, VectorProducts<double>>();
const Engine generic_engine = {"generic", supported, false,
                               routines<float, VectorProducts<float>>(), &generic_f64};
}  // namespace contrastloss::cpu
