// The launch functions of one element type; each element_*.cu defines one instance.
#pragma once

#include <cuda_runtime.h>

#include "grid.h"
#include "plan.h"

namespace contrastloss::cuda {

template <class T>
struct Kernels {
  void (*sides)(const Sides<T>&, unsigned blocks, cudaStream_t);
  void (*forward)(const ForwardPlan<T>&, Special, Grid, cudaStream_t);
  void (*h_block)(const BackwardPlan<T>&, Special, Grid, cudaStream_t);
  void (*totals)(const Totals<T>&, cudaStream_t);
  void (*finish)(const Finish<T>&, cudaStream_t);
  // the size of the tiles
  int tile_rows;
  int (*tile_cols)(Special);
  // how many blocks of a forward or backward pass with so many sums of rows run at once
  int (*concurrent)(const Plan<T>&, Special, bool backward, int row_parts);
  // whether there are kernels other than those for Special::NONE
  bool special;
};

extern const Kernels<float> bf16_kernels, f16_kernels, f32_kernels;
extern const Kernels<double> f64_kernels;

}  // namespace contrastloss::cuda
