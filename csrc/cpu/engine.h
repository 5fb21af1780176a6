// The entry points of one instruction set's engine, and the plain data that they take in addition
// to a Problem. No torch.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "../problem.h"

namespace contrastloss::cpu {

// The k best columns of every row, ordered by the sign of the problem's one channel and restricted
// by its tests; see contrastloss/backends/topk.py.
template <class T>
struct Selection {
  int64_t k = 1;
  const T* lower = nullptr;  // per row, like the next two
  const T* upper = nullptr;
  const int64_t* offsets = nullptr;  // of each row's ignored columns, which ascend
  const int64_t* columns = nullptr;
  T beta = 0;
  const uint32_t* row_keys = nullptr;  // two words per row; null: no sampling
  const uint32_t* col_keys = nullptr;
  T* values = nullptr;  // (M, k): scores, or keys if sampled
  int64_t* indices = nullptr;

  bool sampled() const { return row_keys != nullptr; }
};

// The columns that each row chooses, (M, k). Columns that do not exist are ignored.
template <class T>
struct Places {
  const int64_t* index = nullptr;
  int64_t k = 0;
  T* scores = nullptr;      // the forward pass's result
  const T* grad = nullptr;  // the backward pass's input
};

// A relaxed sorting network, applied to rows.
template <class T>
struct SortProblem {
  int64_t rows = 0, wires = 0, masses = 0, comparators = 0;
  const int32_t* ends = nullptr;  // (a, b) of every comparator
  bool shared = false;            // t is the same for all rows
  const T* x = nullptr;           // (rows, wires)
  const T* t = nullptr;           // (rows, masses, wires), or (masses, wires)
  const T* beta = nullptr;        // (rows)
  T art_lambda = 0;
  Swap swap = Swap::CAUCHY;

  T* sorted = nullptr;  // the forward pass's results
  T* mass = nullptr;

  const T* grad_sorted = nullptr;  // the backward pass's inputs and results; null: not needed
  const T* grad_mass = nullptr;
  T* dx = nullptr;
  T* dt = nullptr;
  T* dbeta = nullptr;
};

// Rows [r0, r1) against columns [c0, c1).
template <class T>
struct Strip {
  int64_t r0, r1, c0, c1;
  T* kept;  // (r1 - r0) (c1 - c0) products, from the first visit to the second
  T* dx;    // if y is x: where the gradients of the columns are added
};

// Runs f(context, k) for k in [0, n) on the caller's threads.
using Parallel = void (*)(int64_t n, void (*f)(void*, int64_t), void* context);

// The functions of an engine for one statistics dtype.
template <class T>
struct Routines {
  void (*forward)(const Problem<T>&, int threads, Parallel);
  void (*backward)(const Problem<T>&, int threads, Parallel);
  // both, of sums alone, whose gradients do not depend on their values
  void (*at_once)(const Problem<T>&, int threads, Parallel);
  void (*strip_forward)(const Problem<T>&, const Strip<T>&);
  void (*strip_backward)(const Problem<T>&, const Strip<T>&);
  void (*merge_rows)(const Problem<T>& all, const Problem<T>& chunk, int64_t r0, int64_t r1);
  void (*topk)(const Problem<T>&, const Selection<T>&, int threads, Parallel);
  void (*gather)(const Problem<T>&, const Places<T>&, int threads, Parallel);
  void (*gather_backward)(const Problem<T>&, const Places<T>&, int threads, Parallel);
  void (*sort)(const SortProblem<T>&, int threads, Parallel);
  void (*sort_backward)(const SortProblem<T>&, int threads, Parallel);
  // 1 / max(|x_i|, 1e-12), 0 for a zero row
  void (*inverse_norms)(const Matrix& x, T* out, int threads, Parallel);
  // turns gradients of the unit vectors r x, `multiplied` by r or not, into those of x
  void (*remove_radial)(const Matrix& x, const T* r, bool multiplied, T* grad, int threads,
                        Parallel);
};

// Every job calls this between its tiles. It throws, on all threads, once a signal has ended the
// operator. True: handlers of signals may have run, and left registers as they liked.
bool poll();

// At least `bytes` bytes of this thread's scratch memory, aligned to cache lines, valid until the
// thread's next call.
void* scratch(int64_t bytes);

// One instruction set's entry points.
struct Engine {
  const char* name;
  bool (*supported)();
  // whether x and y rounded to bf16 are multiplied in bf16, and therefore packed unchanged
  bool bf16;
  Routines<float> f32;
  const Routines<double>* f64;  // engines that differ in bf16 alone share them

  const Routines<float>& of(float) const { return f32; }
  const Routines<double>& of(double) const { return *f64; }
};

extern const Routines<double> generic_f64, avx2_f64, avx512_f64, neon_f64;

extern const Engine generic_engine;
extern const Engine avx2_engine, avx512_engine, avx512_bf16_engine, amx_engine;  // x86-64
extern const Engine neon_engine, neon_bf16_engine;                               // aarch64

}  // namespace contrastloss::cpu
