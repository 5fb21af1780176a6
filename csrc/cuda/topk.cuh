// The k best columns of every row. Columns are visited in chunks. Each row has a list in device
// memory of candidates for its k best, and a floor, its k-th best key so far. For each chunk,
// candidates_kernel appends the keys above the floor, and select_kernel cuts the list to the k
// best, which raises the floor. Columns ascend from chunk to chunk, so the first of several equal
// keys stays.
//
// The order of candidates in a list depends on timing, but which candidates it holds does not.
// Lists are sorted before a candidate is dropped or returned, and no two candidates of a row are
// equal.
#pragma once

#include "noise.cuh"
#include "pairs.cuh"
#include "topk.h"

namespace contrastloss::cuda {

template <class T>
__global__ void begin_kernel(const __grid_constant__ Lists<T> f) {
  const int64_t slot = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (slot < f.slots()) f.counts[slot] = 0, f.floors[slot] = -INFINITY;
}

// Noise needs long code for each of a lane's numbers, and fp64 needs many registers.
template <class T, bool SAMPLED>
constexpr int kTopkCols = SAMPLED || sizeof(T) == 8 ? 4 : 16;

// Offers a lane's share of a tile to the lists of its rows.
template <class T, bool SAMPLED>
class Offer {
  static constexpr int FN = kTopkCols<T, SAMPLED>;

 public:
  __device__ Offer(const TopkPlan<T>& plan, Tile<T, FN>& tile) : f_(plan), tile_(tile) {}

  // Called after the tile has moved to other rows.
  __device__ void set_rows() {
#pragma unroll
    for (int r = 0; r < kLaneRows; ++r) {
      if (!tile_.row_in(r)) continue;
      const int64_t at = tile_.row_place(tile_.row(r));
      floor_[r] = f_.lists.floors[slot(r)];
      low_[r] = f_.lower ? f_.lower[at] : T(-INFINITY);
      high_[r] = f_.upper ? f_.upper[at] : T(INFINITY);
      if (SAMPLED) key_[r][0] = f_.row_keys[2 * at], key_[r][1] = f_.row_keys[2 * at + 1];
    }
  }

  // Turns the tile's products into keys and appends the candidates.
  __device__ __forceinline__ void operator()() {
    const View<T>& view = f_.plan.view[0];
    const Cover cover = tile_.covered(view);
    if (cover == Cover::NONE) return;
    typename Tile<T, FN>::Seen seen;
    if (!tile_.template look<false>(view, cover, seen)) return;
    Mask taken = 0;
#pragma unroll
    for (int c = 0; c < FN; ++c) {
      uint32_t column[2] = {0, 0};
      if (SAMPLED && tile_.col_in(c)) {
        const uint32_t* keys = f_.col_keys + 2 * tile_.col_place(tile_.col(c));
        column[0] = keys[0], column[1] = keys[1];
      }
#pragma unroll
      for (int r = 0; r < kLaneRows; ++r) {
        const T s = tile_.score(false, r, c);
        T key = view.sign * s;
        if (SAMPLED)
          key = plus(times(f_.beta, s), T(Noise::of(key_[r][0], key_[r][1], column[0], column[1])));
        // NaN passes no comparison. A score of -inf is excluded explicitly, since a negative beta
        // would make its key +inf.
        const bool take = (seen.mask & bit<FN>(r, c)) && s >= low_[r] && s <= high_[r] &&
                          key > floor_[r] && !(SAMPLED && s == T(-INFINITY));
        taken |= take ? bit<FN>(r, c) : Mask(0);
        tile_.acc[r][c] = key;
      }
    }
    if (taken && f_.offsets) drop_ignored(taken);
    if (taken) append(taken);
  }

 private:
  __device__ int64_t slot(int r) const {
    return f_.lists.slot(static_cast<int>(blockIdx.z), tile_.row(r));
  }

  __device__ void drop_ignored(Mask& taken) const {
#pragma unroll 1
    for (int k = 0; k < kLaneRows * FN; ++k)
      if ((taken >> k & 1) && ignored(tile_.row_place(tile_.row(k / FN)), tile_.col(k % FN)))
        taken &= ~(1ull << k);
  }
  // Offsets that do not ascend must not lead outside the lists.
  __device__ bool ignored(int64_t row, int64_t column) const {
    const auto inside = [&](int64_t at) { return at < 0 ? 0 : at > f_.listed ? f_.listed : at; };
    int64_t at = inside(f_.offsets[row]), end = inside(f_.offsets[row + 1]);
    const int64_t last = end;
    while (at < end) {
      const int64_t middle = at + (end - at) / 2;
      if (f_.columns[middle] < column)
        at = middle + 1;
      else
        end = middle;
    }
    return at < last && f_.columns[at] == column;
  }

  __device__ void append(Mask taken) const {
#pragma unroll
    for (int r = 0; r < kLaneRows; ++r) {
      const unsigned own = static_cast<unsigned>(taken >> (FN * r)) & ((1u << FN) - 1);
      if (!own) continue;
      Packed<T>* list = f_.lists.all + slot(r) * f_.lists.capacity;
      list += atomicAdd(&f_.lists.counts[slot(r)], __popc(own));
#pragma unroll
      for (int c = 0; c < FN; ++c)
        if (own >> c & 1)
          *list++ = Candidate<T>::pack(tile_.acc[r][c], static_cast<uint32_t>(tile_.col(c)));
    }
  }

  const TopkPlan<T>& f_;
  Tile<T, FN>& tile_;
  T floor_[kLaneRows], low_[kLaneRows], high_[kLaneRows];
  uint32_t key_[kLaneRows][2];
};

template <class E, class T, bool SAMPLED>
__global__ void __launch_bounds__(kThreads, 1)
    candidates_kernel(const __grid_constant__ TopkPlan<T> f) {
  constexpr int FN = kTopkCols<T, SAMPLED>;
  const int i0 = f.lists.i0, i1 = min(i0 + f.lists.rows, f.plan.m);
  const Shared<T, FN> shared(f.plan);
  Tile<T, FN> tile(f.plan, shared, i1, f.j1);
  Offer<T, SAMPLED> offer(f, tile);
  Walk<E, T, FN> walk(f.plan, shared.stages, i0, i1, f.j0, f.j1);
  for (bool fresh = true; !walk.done(); walk.advance()) {
    if (fresh) tile.set_rows(walk.i), offer.set_rows();
    tile.set_cols(walk.j);
    walk.products(tile.lane, tile.acc);  // contains a barrier
    offer();
    fresh = walk.last_of_row();
    __syncthreads();  // before the vectors change
  }
}

// Sorts a block's numbers in descending order. In this bitonic network every comparator moves the
// larger number to the front, so a comparator whose second position is beyond the end has nothing
// to do.
template <class P>
__device__ void sort(P* v, int n) {
  __syncthreads();
  for (int64_t size = 2; size < 2 * int64_t(n); size *= 2)
    for (int64_t span = size; span > 1; span /= 2) {
      const int64_t half = span / 2;
      for (int64_t pair = threadIdx.x;; pair += blockDim.x) {
        const int64_t within = pair & (half - 1), a = 2 * pair - within;
        if (a >= n) break;
        const int64_t b = span == size ? a + span - 1 - 2 * within : a + half;
        if (b >= n || v[a] > v[b]) continue;
        const P smaller = v[a];
        v[a] = v[b], v[b] = smaller;
      }
      // for spans up to 64, all pairs of a warp are within the same 64 numbers
      const int64_t next = span > 2 ? span : 2 * size;
      if (next > 64)
        __syncthreads();
      else
        __syncwarp();
    }
  __syncthreads();
}

// One block per row.
template <class T>
__global__ void select_kernel(const __grid_constant__ Lists<T> f, bool last) {
  const int64_t slot = blockIdx.x;
  Packed<T>* list = f.all + slot * f.capacity;
  const int count = f.counts[slot];
  if (!last && count <= f.k) return;  // nothing to drop
  Packed<T>* best = reinterpret_cast<Packed<T>*>(shared_memory);
  int kept = 0;
  if (2 * int64_t(f.k) <= kSortable<T>) {
    for (int at = 0; at < count;) {
      const int more = min(kSortable<T> - kept, count - at);
      for (int c = threadIdx.x; c < more; c += blockDim.x) best[kept + c] = list[at + c];
      sort(best, kept + more);
      kept = min(kept + more, f.k), at += more;
    }
  } else {
    sort(list, count);
    best = list, kept = min(count, f.k);
  }
  if (!last) {
    for (int c = threadIdx.x; best != list && c < kept; c += blockDim.x) list[c] = best[c];
    if (threadIdx.x == 0) f.counts[slot] = kept, f.floors[slot] = Candidate<T>::key(best[kept - 1]);
    return;
  }
  const int64_t i = f.i0 + slot % f.rows;
  if (i >= f.m) return;
  const int64_t to = (slot / f.rows * f.m + i) * f.wanted;
  for (int c = threadIdx.x; c < f.wanted; c += blockDim.x) {
    const bool some = c < kept;
    f.values[to + c] = some ? f.sign * Candidate<T>::key(best[c]) : T(-INFINITY);
    f.indices[to + c] = some ? int64_t(Candidate<T>::column(best[c])) : -1;
  }
}

}  // namespace contrastloss::cuda
