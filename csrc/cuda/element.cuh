// The kernels of one element type, E, with statistics in T.
#pragma once

#include "backward.cuh"
#include "kernels.h"
#include "launch.h"
#include "rows.cuh"

namespace contrastloss::cuda {

// Calls f with the formulas that `special` stands for. fp64 has only the generic kernels.
template <class T, class F>
void with_formulas(Special special, const F& f) {
  if constexpr (sizeof(T) == 4) {
    switch (special) {
      case Special::LOG: return f(Formulas<kLse>());
      case Special::LOG_AND_SUM: return f(Formulas<kLse, kId>());
      case Special::LOG_AND_SUMS: return f(Formulas<kLse, kOne, kId>());
      case Special::TWO_LOGS: return f(Formulas<kLse, kLse>());
      case Special::TWO_LOGS_AND_SUM: return f(Formulas<kLse, kLse, kId>());
      case Special::SUM_AND_SOFTPLUS: return f(Formulas<kId, kSoftplus>());
      case Special::NONE: break;
    }
  }
  f(Formulas<>());
}

inline dim3 shape(Grid grid) {
  return dim3(static_cast<unsigned>(grid.across), static_cast<unsigned>(grid.down),
              static_cast<unsigned>(grid.batch));
}

template <class E, class T>
struct Launches {
  static void sides(const Sides<T>& call, unsigned blocks, cudaStream_t stream) {
    launch(sides_kernel<E, T>, dim3(blocks), kThreads, 4 * kThreads / 32 * sizeof(T), stream, call);
  }

  static void forward(const ForwardPlan<T>& f, Special special, Grid grid, cudaStream_t stream) {
    with_formulas<T>(special, [&](auto formulas) {
      using Fs = decltype(formulas);
      launch(forward_kernel<E, T, Fs>, shape(grid), kThreads,
             shared_bytes<T, Fs::cols>(f.plan, f.row_parts), stream, f);
    });
    if (f.finished) return;
    const int length = std::max(f.plan.m, f.plan.n);
    launch(merge_kernel<T>, dim3(blocks(length, kThreads), 1, shape(grid).z), kThreads, 0, stream,
           f, grid.across, grid.down, grid.batch);
  }

  static void h_block(const BackwardPlan<T>& f, Special special, Grid grid, cudaStream_t stream) {
    with_formulas<T>(special, [&](auto formulas) {
      using Fs = decltype(formulas);
      launch(h_block_kernel<E, T, Fs>, shape(grid), kThreads,
             shared_bytes<T, Fs::cols>(f.plan, f.row_parts), stream, f);
    });
  }

  static void totals(const Totals<T>& f, cudaStream_t stream) {
    const dim3 grid(blocks(std::max(f.m, f.n), kThreads), 1, static_cast<unsigned>(f.batch));
    launch(totals_kernel<T>, grid, kThreads, 0, stream, f);
  }

  static void finish(const Finish<T>& f, cudaStream_t stream) {
    const dim3 grid(blocks(f.rows, kThreads / 32));
    if (f.narrow) return launch(finish_kernel<E, E, T>, grid, kThreads, 0, stream, f);
    launch(finish_kernel<E, T, T>, grid, kThreads, 0, stream, f);
  }

  static int tile_cols(Special special) {
    int cols = 0;
    with_formulas<T>(special, [&](auto formulas) { cols = kTileCols<decltype(formulas)::cols>; });
    return cols;
  }

  static int concurrent(const Plan<T>& plan, Special special, bool backward, int row_parts) {
    int blocks = 0;
    with_formulas<T>(special, [&](auto formulas) {
      using Fs = decltype(formulas);
      const int64_t shared = shared_bytes<T, Fs::cols>(plan, row_parts);
      blocks = backward ? cuda::concurrent(h_block_kernel<E, T, Fs>, kThreads, shared)
                        : cuda::concurrent(forward_kernel<E, T, Fs>, kThreads, shared);
    });
    return blocks;
  }

  static constexpr Kernels<T> all() {
    return {sides,     forward,   h_block,    totals,        finish,
            kTileRows, tile_cols, concurrent, sizeof(T) == 4};
  }
};

}  // namespace contrastloss::cuda
