// A top-k candidate, shared by C++ and CUDA. No torch, no Python.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "channel.h"

namespace contrastloss {

// A key and its column, packed into one integer. Standard algorithms, which are not compiled per
// instruction set, compare integers without calling a function. A larger integer is better; among
// equal keys the smaller column is better. No two candidates of a row are equal, so the k best and
// their order are unique. 0 means no candidate.
template <class T>
struct Candidate {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  using Packed = std::conditional_t<sizeof(T) == 8, unsigned __int128, uint64_t>;
  static constexpr Bits kSign = Bits(1) << (8 * sizeof(T) - 1);

  static CL_HD Packed pack(T key, uint32_t column) {
    key += T(0);  // turns -0 into 0
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
