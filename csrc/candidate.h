// A candidate of a top-k, once for C++ and CUDA. A leaf: no torch, no Python.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "channel.h"

namespace contrastloss {

// A key and its column as one integer, a type that the standard library's algorithms, which are not
// compiled for an instruction set, compare without a call. Larger is better, and of equal keys the
// smaller column is: no two candidates of a row are equal, so the k best of them are one set in one
// order. 0 is none.
template <class T>
struct Candidate {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  using Packed = std::conditional_t<sizeof(T) == 8, unsigned __int128, uint64_t>;
  static constexpr Bits kSign = Bits(1) << (8 * sizeof(T) - 1);

  static CL_HD Packed pack(T key, uint32_t column) {
    key += T(0);  // -0 is 0
    Bits bits;
    memcpy(&bits, &key, sizeof bits);
    const Bits ordered = bits & kSign ? static_cast<Bits>(~bits) : bits | kSign;
    return Packed(ordered) << (8 * sizeof(T)) | (0xffffffffu - column);
  }
  static CL_HD T key(Packed packed) {
    const Bits ordered = static_cast<Bits>(packed >> (8 * sizeof(T)));
    const Bits bits = ordered & kSign ? ordered & ~kSign : static_cast<Bits>(~ordered);
    T key;
    memcpy(&key, &bits, sizeof key);
    return key;
  }
  static CL_HD uint32_t column(Packed packed) {
    return 0xffffffffu - static_cast<uint32_t>(packed);
  }
};

template <class T>
using Packed = typename Candidate<T>::Packed;

}  // namespace contrastloss
