// A block's shared memory: what lies where in it.
#pragma once

#include "ids.cuh"

namespace contrastloss::cuda {

// The vectors of a tile in shared memory, for direct [0] and transposed [1] pairs:
// s = scale * product * factor_i * factor_j + add_i + add_j.
template <class T, int FN>
struct Vectors {
  T row_factor[2][kTileRows], row_add[2][kTileRows];
  T col_factor[2][kTileCols<FN>], col_add[2][kTileCols<FN>];
};

// The two stages of products, the tile's vectors and its ids; then come the kernel's sums.
template <class T, int FN>
struct Shared {
  __device__ explicit Shared(const Plan<T>& plan)
      : vectors(*reinterpret_cast<Vectors<T, FN>*>(stages + 2 * kStageBytes<FN>)),
        ids(plan, &vectors + 1),
        sums(reinterpret_cast<T*>(stages + bytes(plan))) {}

  // Without the sums.
  __host__ __device__ static constexpr int64_t bytes(const Plan<T>& plan) {
    return 2 * kStageBytes<FN> + int64_t(sizeof(Vectors<T, FN>)) + Ids<FN>::bytes(plan);
  }

  unsigned char* const stages = shared_memory;
  Vectors<T, FN>& vectors;
  const Ids<FN> ids;
  T* const sums;
};
}  // namespace contrastloss::cuda
