// The engine for generic.
#include "isa_begin.h"


#include "../channel.h"

namespace contrastloss::cpu {
namespace {
constexpr int kVectorBytes = 16, kMicroRows = 3, kTileRows = 192;
#include "isa.h"

bool supported() {
  return true;
}
}  // namespace

const Engine generic_engine = {"generic",
                              supported,
                              false,
                              run_problem<float, false>,
                              run_problem<double, false>,
                              run_problem<float, true>,
                              run_problem<double, true>};
}  // namespace contrastloss::cpu

