// What every engine includes before its target is active.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define CL_ASAN
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define CL_ASAN
#endif
#ifdef CL_ASAN
#define CL_CHECKED
#include <sanitizer/asan_interface.h>
#endif

#define CL_INLINE inline __attribute__((always_inline))
#define CL_NOINLINE __attribute__((noinline))
