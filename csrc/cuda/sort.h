// Sorting networks as kernels and host see them: plain data.
#pragma once

#include <cuda_runtime.h>

#include "../channel.h"
#include "../problem.h"

namespace contrastloss::cuda {

// More wires have no room in shared memory: WIRES of contrastloss/backends/cuda.py.
constexpr int64_t kMostWires = 1024;

// A team of threads has a row, a thread every `team`-th comparator of a layer. Teams of up to 32
// are parts of a warp, larger ones are a block. What its comparators did in one segment of layers
// is in shared memory; networks of several segments leave the wires at the start of each in
// `scratch`.
template <class T>
struct SortPlan {
  int rows, wires, masses, layers, comparators;
  int team, teams;        // threads of a team, teams of a block
  int segment, segments;  // layers of a segment
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
  const T* grad_sorted;  // the backward pass's inputs, and results; null: not wanted
  const T* grad_mass;
  T* dx;
  T* dt;
  T* dbeta;
};

// Numbers of shared memory and of scratch that a row takes.
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
