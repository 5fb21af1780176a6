// Relaxed sorting networks: sorted = x P and P t = W_1 (W_2 ... (W_C t)). P is never formed.
//
// Backward, from the gradients r of the sorted row and g of P t, segment by segment from the last:
//   x forwards:   keep delta and w of every comparator
//   g forwards:   keep g_b - g_a before every comparator; the result of the network is dt
//   t backwards:  dw += (g_b - g_a) (v_b - v_a)
//   r backwards:  dw += (r_b - r_a) delta, r <- W r, then r_a -= F' dw and r_b += F' dw; the
//                 result is dx
#pragma once

#include "../relaxed.h"
#include "sort.h"

namespace contrastloss::cuda {

extern __shared__ __align__(128) unsigned char shared_memory[];

template <class T, Swap S>
class SortRow {
 public:
  __device__ SortRow(const SortPlan<T>& plan, bool backward)
      : p_(plan), id_(static_cast<int>(threadIdx.x) % plan.team) {
    const int team = static_cast<int>(threadIdx.x) / plan.team;
    const int64_t row = int64_t(blockIdx.x) * plan.teams + team;
    // a team without its own row repeats the last row and writes nothing
    active_ = row < plan.rows;
    row_ = active_ ? row : plan.rows - 1;
    swap_ = {plan.beta[row_], plan.art_lambda};
    const int64_t kept = int64_t(plan.segment) * (plan.wires / 2);
    T* memory = reinterpret_cast<T*>(shared_memory) +
                team * sort_shared(plan.wires, plan.segment, backward);
    x_ = memory, v_ = x_ + plan.wires;
    w_ = v_ + plan.wires, delta_ = w_ + kept;
    if (backward) dw_ = delta_ + kept, gap_ = dw_ + kept, g_ = gap_ + kept, r_ = g_ + plan.wires;
    checkpoints_ =
        plan.scratch + (int64_t(blockIdx.x) * plan.teams + team) *
                           sort_scratch(plan.wires, plan.masses, plan.segments, backward);
    g_checkpoints_ = checkpoints_ + int64_t(plan.segments) * plan.wires;
    v_kept_ = g_checkpoints_ + int64_t(plan.masses) * plan.segments * plan.wires;
  }

  __device__ void forward() {
    x_up_all();
    write(x_, p_.sorted + row_ * p_.wires);
    for (int s = p_.segments - 1; s >= 0 && p_.masses; --s) {
      x_up(s);
      for (int k = 0; k < p_.masses; ++k) {
        T* to = p_.mass + (row_ * p_.masses + k) * p_.wires;
        // each wire is always read and written by the same thread
        read(v_, s == p_.segments - 1 ? t(k) : to);
        down(s, [&](int at, int a, int b) { mix(v_, at, a, b); });
        write(v_, to);
        sync();
      }
    }
  }

  __device__ void backward() {
    x_up_all();
    for (int s = 0; s + 1 < p_.segments && p_.masses; ++s) {
      x_up(s);
      for (int k = 0; k < p_.masses; ++k) {
        read(g_, gradient(k, s));
        up(s, [&](int at, int a, int b) { mix(g_, at, a, b); });
        write_scratch(g_, g_checkpoint(k, s + 1));
        sync();
      }
    }
    read(r_, p_.grad_sorted + row_ * p_.wires);
    T dbeta = 0;
    for (int s = p_.segments - 1; s >= 0; --s) {
      x_up(s);
      up(s, [&](int at, int, int) { dw_[at] = 0; });
      for (int k = 0; k < p_.masses; ++k) mass_down(s, k);
      down(s, [&](int at, int a, int b) {
        const T total = dw_[at] + mix(r_, at, a, b) * delta_[at];
        T by_delta, by_beta;
        swap_.slopes(delta_[at], w_[at], by_delta, by_beta);
        r_[a] -= by_delta * total;
        r_[b] += by_delta * total;
        dbeta += by_beta * total;
      });
    }
    if (p_.dx) write(r_, p_.dx + row_ * p_.wires);
    if (p_.dbeta) write_sum(dbeta);
  }

 private:
  __device__ void sync() const {
    if (p_.team <= 32) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }

  // Calls f(place, a, b) for this thread's comparators of one layer. Whatever numbers the tables
  // hold, no table is read beyond its end, and comparators with invalid wires are skipped.
  template <class F>
  __device__ void layer(int s, int l, const F& f) {
    const int half = p_.wires / 2, place = (l - s * p_.segment) * half;
    const int first = min(max(p_.starts[l], 0), p_.comparators);
    const int end = min(p_.starts[l + 1], min(first + half, p_.comparators));
    for (int c = first + id_; c < end; c += p_.team) {
      const int a = p_.ends[2 * c], b = p_.ends[2 * c + 1];
      if (min(a, b) >= 0 && max(a, b) < p_.wires) f(place + c - first, a, b);
    }
    sync();
  }
  template <class F>
  __device__ void up(int s, const F& f) {
    const int end = min((s + 1) * p_.segment, p_.layers);
    for (int l = s * p_.segment; l < end; ++l) layer(s, l, f);
  }
  template <class F>
  __device__ void down(int s, const F& f) {
    for (int l = min((s + 1) * p_.segment, p_.layers) - 1; l >= s * p_.segment; --l) layer(s, l, f);
  }

  // Applies W to v with the weight stored at `at`. Returns v_b - v_a from before.
  __device__ T mix(T* v, int at, int a, int b) const {
    const T low = v[a], high = v[b], difference = high - low, moved = w_[at] * difference;
    v[a] = high - moved, v[b] = low + moved;
    return difference;
  }

  __device__ void sort(int s) {
    up(s, [&](int at, int a, int b) {
      delta_[at] = x_[b] - x_[a];
      w_[at] = swap_.weight(delta_[at]);
      mix(x_, at, a, b);
    });
  }
  // Sends x through the whole network, and stores where each segment starts.
  __device__ void x_up_all() {
    read(x_, p_.x + row_ * p_.wires);
    for (int s = 0; s < p_.segments; ++s) {
      if (p_.segments > 1) write_scratch(x_, checkpoints_ + int64_t(s) * p_.wires);
      sync();
      sort(s);
    }
  }
  // Recomputes the weights of one segment. A single segment still has them.
  __device__ void x_up(int s) {
    if (p_.segments == 1) return;
    sync();
    read(x_, checkpoints_ + int64_t(s) * p_.wires);
    sort(s);
  }

  __device__ void mass_down(int s, int k) {
    const bool last = s == p_.segments - 1;
    read(g_, gradient(k, s));
    up(s, [&](int at, int a, int b) { gap_[at] = mix(g_, at, a, b); });
    if (last && p_.dt) write(g_, p_.dt + (row_ * p_.masses + k) * p_.wires);
    T* kept = v_kept_ + int64_t(k) * p_.wires;
    read(v_, last ? t(k) : kept);
    down(s, [&](int at, int a, int b) { dw_[at] += gap_[at] * mix(v_, at, a, b); });
    if (s > 0) write_scratch(v_, kept);
    sync();
  }

  __device__ const T* t(int k) const {
    return p_.t + ((p_.shared ? 0 : row_ * p_.masses) + k) * p_.wires;
  }
  __device__ T* g_checkpoint(int k, int s) const {
    return g_checkpoints_ + (int64_t(k) * p_.segments + s) * p_.wires;
  }
  __device__ const T* gradient(int k, int s) const {
    return s ? g_checkpoint(k, s) : p_.grad_mass + (row_ * p_.masses + k) * p_.wires;
  }

  __device__ void read(T* to, const T* from) {
    for (int i = id_; i < p_.wires; i += p_.team) to[i] = from[i];
    sync();
  }
  __device__ void write(const T* from, T* to) {
    if (active_) write_scratch(from, to);
  }
  __device__ void write_scratch(const T* from, T* to) {
    for (int i = id_; i < p_.wires; i += p_.team) to[i] = from[i];
  }
  __device__ void write_sum(T part) {
    sync();
    v_[id_] = part;
    sync();
    if (id_ != 0 || !active_) return;
    T total = 0;
    for (int k = 0; k < p_.team; ++k) total += v_[k];
    p_.dbeta[row_] = total;
  }

  const SortPlan<T>& p_;
  const int id_;
  int64_t row_;
  bool active_;
  Relaxed<T, S> swap_;
  T *x_, *v_, *w_, *delta_, *dw_, *gap_, *g_, *r_;
  T *checkpoints_, *g_checkpoints_, *v_kept_;
};

template <class T, Swap S>
__global__ void __launch_bounds__(512) sort_kernel(const __grid_constant__ SortPlan<T> plan) {
  SortRow<T, S>(plan, false).forward();
}
template <class T, Swap S>
__global__ void __launch_bounds__(512)
    sort_backward_kernel(const __grid_constant__ SortPlan<T> plan) {
  SortRow<T, S>(plan, true).backward();
}

}  // namespace contrastloss::cuda
