// What every instruction set's engine needs from outside, included before its target is in force.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "plan.h"

#define CL_INLINE inline __attribute__((always_inline))
#define CL_NOINLINE __attribute__((noinline))
