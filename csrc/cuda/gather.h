// Scores of row-private columns and their gradients, as kernels are told of them. Rows, columns and
// entries of `index` are counted over the whole batch.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace contrastloss::cuda {

template <class T>
struct GatherPlan {
  const void* x;  // (batch m, d)
  const void* y;  // (batch n, d)
  int64_t rows, cols, k;
  int m, n, d;
  int team;        // lanes to a vector, a power of two
  bool wide;       // vectors can be read 16 bytes at a time
  bool block;      // a row's or column's sums are a block's work, not a warp's
  const T* scale;  // null: 1
  const T* a;      // with cosines these hold the inverse norms too
  const T* b;
  const T* beta;
  const T* gamma;
  const int64_t* index;  // (rows, k), a column of the row's own batch item or none
};

// What is summed for each row or each column; null: nothing.
template <class T>
struct GatherSums {
  T* vector;  // (rows, d) or (cols, d)
  T* bias;
  T* dot;
  bool add;  // to what `vector` holds
  const T* grad;
  const T* dots;  // <x_i, y_j> of every entry, for `dot`
  // of columns: the entries of column j are order[starts[j]] ... order[starts[j + 1]]
  const int64_t* order;
  const int64_t* starts;
};

// Of one element type; each is one launch.
template <class T>
struct GatherKernels {
  void (*scores)(const GatherPlan<T>&, T* to, cudaStream_t);
  void (*sums)(const GatherPlan<T>&, const GatherSums<T>&, cudaStream_t);
  int per_lane;  // elements that a lane reads at a time
};

extern const GatherKernels<float> gather_bf16, gather_f16, gather_f32;
extern const GatherKernels<double> gather_f64;

}  // namespace contrastloss::cuda
