// The body of one instruction set's engine. Everything below is compiled for the target that is
// active where this file is included, in the namespace around it. It defines no inline function
// with external linkage, so no other translation unit can link to this code.
// clang-format off: each header needs the ones before it
#include "simd_math.h"
#include "carver.h"
#include "packing.h"
#include "gemm.h"
#include "vector_products.h"
#include "pairs.h"
#include "lone_sum.h"
#include "forward.h"
#include "backward.h"
#include "cosine.h"
#include "schedule.h"
#include "strip.h"
#include "noise.h"
#include "topk.h"
#include "gather.h"
#include "sort.h"
#include "routines.h"
// clang-format on
