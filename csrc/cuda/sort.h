// Sorting networks: plain data for kernels and host.
#pragma once

#include <cuda_runtime.h>

#include "../channel.h"
#include "../problem.h"

namespace contrastloss::cuda {

// More wires do not fit in shared memory: WIRES of contrastloss/backends/cuda.py.
constexpr int64_t kMostWires = 1024;

// A team of threads processes one row; each thread takes every `team`-th comparator of a layer. A
// team of up to 32 threads is part of a warp, a larger one is a block. Shared memory holds the
// results of the comparators of one segment of layers. If there are several segments, `scratch`
// holds the wires at the start of each.
template <class T>
struct SortPlan {
  int rows, wires, masses, layers, comparators;
  int team, teams;        // threads per team, teams per block
  int segment, segments;  // layers per segment
  bool shared;            // t is the same for all rows
  const int* ends;        // (a, b) of every comparator
  const int* starts;      // the first comparator of every layer, and the end
  const T* x;             // (rows, wires)
  const T* t;             // (rows, masses, wires), or (masses, wires)
  const T* beta;          // (rows)
  T art_lambda;
  T* scratch;  // per row: see SortRow

  T* sorted;  // the forward pass's results
  T* mass;
  const T* grad_sorted;  // the backward pass's inputs and results; null: not needed
  const T* grad_mass;
  T* dx;
  T* dt;
  T* dbeta;
};

// How many numbers of shared memory and of scratch one row takes.
CL_HD constexpr int64_t sort_shared(int64_t wires, int64_t segment, bool backward) {
  return (backward ? 4 : 2) * (wires + segment * (wires / 2));
}
CL_HD constexpr int64_t sort_scratch(int64_t wires, int64_t masses, int64_t segments,
                                     bool backward) {
  return segments == 1 ? 0 : wires * (segments + (backward ? masses * (segments + 1) : 0));
}

template <class T>
void launch_sort(const SortPlan<T>& plan, Swap swap, bool backward, cudaStream_t stream);

}  // namespace contrastloss::cuda
