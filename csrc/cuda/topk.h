// The k best columns of every row: plain data for kernels and host.
#pragma once

#include <cuda_runtime.h>

#include "../candidate.h"
#include "plan.h"

namespace contrastloss::cuda {

// How many candidates of one row fit in shared memory, on all supported chips.
template <class T>
constexpr int kSortable = (64 << 10) / sizeof(Packed<T>);

// The lists of a part: rows [i0, i0 + rows) of `items` batch items. The pointers below belong to
// the first of these items.
template <class T>
struct Lists {
  int k;         // at most this many candidates are kept per row
  int capacity;  // per list: k and one chunk of columns
  int i0, rows, items;
  Packed<T>* all;  // (items, rows, capacity), unordered within a row
  int* counts;     // (items, rows)
  T* floors;       // (items, rows): the key that a new candidate must exceed

  int m, wanted;  // results have `wanted` slots, at most k of which are filled
  T sign;         // value = sign key
  T* values;      // (items, m, wanted)
  int64_t* indices;

  CL_HD int64_t slots() const { return int64_t(items) * rows; }
  CL_HD int64_t slot(int item, int i) const { return int64_t(item) * rows + (i - i0); }
};

template <class T>
struct TopkPlan {
  Plan<T> plan;  // one view, never symmetric: a test excludes the pair (i, i)
  int j0, j1;    // the chunk of columns
  bool sampled;
  T beta;
  const T* lower;  // (items, m); null: no bound
  const T* upper;
  const int64_t* offsets;  // (items m + 1), into `columns`; null: nothing is ignored
  const int64_t* columns;
  int64_t listed;
  const uint32_t* row_keys;  // (items, m, 2)
  const uint32_t* col_keys;  // (items, n, 2)
  Lists<T> lists;
};

// Empties the lists.
template <class T>
void launch_begin(const Lists<T>& lists, cudaStream_t stream);
// Appends the candidates of a chunk to the lists of their rows.
template <class T>
void launch_candidates(const TopkPlan<T>& plan, Element element, cudaStream_t stream);
// Cuts the lists to the k best; after the last chunk, writes them as results.
template <class T>
void launch_select(const Lists<T>& lists, bool last, cudaStream_t stream);

}  // namespace contrastloss::cuda
