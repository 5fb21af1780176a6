// The k best columns of every row as kernels and host see them: plain data.
#pragma once

#include <cuda_runtime.h>

#include "../candidate.h"
#include "plan.h"

namespace contrastloss::cuda {

// Shared memory for candidates of one row, of chips with the least of it too.
template <class T>
constexpr int kSortable = (64 << 10) / sizeof(Packed<T>);

// The lists of a part: rows [i0, i0 + rows) of `items` batch items, the first of which the pointers
// below are of.
template <class T>
struct Lists {
  int k;         // at most this many of a row are kept
  int capacity;  // of a list: k and one chunk of columns
  int i0, rows, items;
  Packed<T>* all;  // (items, rows, capacity), of each row in no order
  int* counts;     // (items, rows)
  T* floors;       // (items, rows): the key that a further candidate has to exceed

  int m, wanted;  // results have `wanted` places, of which no more than k are filled
  T sign;         // value = sign key
  T* values;      // (items, m, wanted)
  int64_t* indices;

  CL_HD int64_t slots() const { return int64_t(items) * rows; }
  CL_HD int64_t slot(int item, int i) const { return int64_t(item) * rows + (i - i0); }
};

template <class T>
struct TopkPlan {
  Plan<T> plan;  // one view, never symmetric: the pair (i, i) is left out by a test
  int j0, j1;    // the chunk of columns
  bool sampled;
  T beta;
  const T* lower;  // (items, m); null: no bound
  const T* upper;
  const int64_t* offsets;  // (items m + 1), into all columns; null: nothing is ignored
  const int64_t* columns;
  int64_t listed;
  const uint32_t* row_keys;  // (items, m, 2)
  const uint32_t* col_keys;  // (items, n, 2)
  Lists<T> lists;
};

// Empty lists.
template <class T>
void launch_begin(const Lists<T>& lists, cudaStream_t stream);
// The candidates of a chunk, at the ends of their rows' lists.
template <class T>
void launch_candidates(const TopkPlan<T>& plan, Element element, cudaStream_t stream);
// Cuts lists to the k best or, after the last chunk, writes these as results.
template <class T>
void launch_select(const Lists<T>& lists, bool last, cudaStream_t stream);

}  // namespace contrastloss::cuda
