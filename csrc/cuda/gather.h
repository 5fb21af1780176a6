// The scores of columns that each row chooses, and their gradients: the data of their kernels.
// Rows, columns and entries of `index` are counted over the whole batch.
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
  int team;        // lanes per vector, a power of two
  bool wide;       // vectors can be read 16 bytes at a time
  bool block;      // a block, not a warp, sums up one row or column
  const T* scale;  // null: 1
  const T* a;      // with cosines, a and b include the inverse norms
  const T* b;
  const T* beta;
  const T* gamma;
  const int64_t* index;  // (rows, k), columns of the row's own batch item; others are ignored
};

// The sums of each row or each column; null: not needed.
template <class T>
struct GatherSums {
  T* vector;  // (rows, d) or (cols, d)
  T* bias;
  T* dot;
  bool add;  // adds to `vector` instead of overwriting it
  const T* grad;
  const T* dots;  // <x_i, y_j> of every entry, for `dot`
  // for columns: the entries of column j are order[starts[j]] ... order[starts[j + 1] - 1]
  const int64_t* order;
  const int64_t* starts;
};

// The kernels of one element type; each call is one launch.
template <class T>
struct GatherKernels {
  void (*scores)(const GatherPlan<T>&, T* to, cudaStream_t);
  void (*sums)(const GatherPlan<T>&, const GatherSums<T>&, cudaStream_t);
  int per_lane;  // elements that a lane reads at a time
};

extern const GatherKernels<float> gather_bf16, gather_f16, gather_f32;
extern const GatherKernels<double> gather_f64;

}  // namespace contrastloss::cuda
