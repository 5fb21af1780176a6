// The ids of a tile's rows and columns, which tests compare, and the bits of a lane's pairs.
#pragma once

#include "../pair.h"
#include "tile.cuh"

namespace contrastloss::cuda {

// One bit for each of a lane's pairs.
using Mask = unsigned long long;
template <int FN>
constexpr Mask kEvery = ~Mask(0) >> (64 - kLaneRows * FN);

template <int FN>
__device__ constexpr Mask bit(int r, int c) {
  return Mask(1) << (FN * r + c);
}

// The pairs for which f(r, c) holds. Unrolled: nothing is indexed, no branch is taken.
template <int FN, class F>
__device__ __forceinline__ Mask pairs_where(const F& f) {
  Mask found = 0;
#pragma unroll
  for (int c = 0; c < FN; ++c)
#pragma unroll
    for (int r = 0; r < kLaneRows; ++r) found |= f(r, c) ? bit<FN>(r, c) : Mask(0);
  return found;
}

// The ids of a tile in shared memory: for every slot of the plan those of direct [0] and, if there
// are transposed views, of transposed pairs [1]; of the tile's rows first, then of its columns.
template <int FN>
class Ids {
  static constexpr int kLength = kTileRows + kTileCols<FN>;

 public:
  template <class T>
  __host__ __device__ static constexpr int64_t bytes(const Plan<T>& plan) {
    return int64_t(plan.ids) * (plan.turned ? 2 : 1) * kLength * int64_t(sizeof(int64_t));
  }

  template <class T>
  __device__ Ids(const Plan<T>& plan, void* shared)
      : shared_(static_cast<int64_t*>(shared)), sides_(plan.turned ? 2 : 1) {}

  __device__ __forceinline__ int64_t row(int slot, bool transposed, int k) const {
    return at(slot, transposed)[k];
  }
  __device__ __forceinline__ int64_t col(int slot, bool transposed, int k) const {
    return at(slot, transposed)[kTileRows + k];
  }

  // Stores the ids of rows or columns [first, end), whose place in memory begins at `place`. The
  // last threads begin, since the first ones store the tile's vectors.
  template <class T>
  __device__ void set(const Plan<T>& plan, bool column, int first, int end, int64_t place) const {
    const int from = column ? kTileRows : 0, count = column ? kTileCols<FN> : kTileRows;
    for (int slot = 0; slot < plan.ids; ++slot)
      for (int side = 0; side < sides_; ++side) {
        const int64_t* ids = (side == 0) == column ? plan.id[slot].col : plan.id[slot].row;
        for (int k = kThreads - 1 - static_cast<int>(threadIdx.x); k < count; k += kThreads)
          at(slot, side)[from + k] = first + k >= end ? 0 : ids ? ids[place + k] : first + k;
      }
  }

 private:
  __device__ __forceinline__ int64_t* at(int slot, int side) const {
    // NOLINTNEXTLINE(bugprone-implicit-widening-of-multiplication-result): within shared memory
    return shared_ + (slot * sides_ + side) * kLength;
  }

  int64_t* shared_;
  const int sides_;
};

}  // namespace contrastloss::cuda
