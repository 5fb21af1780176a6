// The body of one instruction set's engine: everything below is compiled for the target that is in
// force where this file is included, in the namespace that stands around it. No inline function
// with external linkage is defined here, so no other translation unit can pick one of them up.
// clang-format off: each part needs those before it
#include "simd_math.h"
#include "carver.h"
#include "packing.h"
#include "gemm.h"
#include "vector_products.h"
#include "pairs.h"
#include "forward.h"
#include "backward.h"
#include "cosine.h"
#include "schedule.h"
#include "noise.h"
#include "topk.h"
#include "gather.h"
#include "sort.h"
#include "routines.h"
// clang-format on
