// What the operators on CUDA tensors share: a call on the device, its kernels, and the norms and
// bounds that are computed first. Host code. Nothing here synchronises with the device, and PyTorch
// allocates all memory.
#pragma once

#include <cuda/device.h>

#include "check.h"
#include "kernels.h"
#include "launch.h"
#include "read.h"

namespace contrastloss::cuda {

inline const Kernels<float>& kernels(ScalarType type, float) {
  if (type == ScalarType::BFloat16) return bf16_kernels;
  if (type == ScalarType::Half) return f16_kernels;
  STD_TORCH_CHECK(type == ScalarType::Float, "x: unsupported dtype");
  return f32_kernels;
}
inline const Kernels<double>& kernels(ScalarType type, double) {
  STD_TORCH_CHECK(type == ScalarType::Double, "x: unsupported dtype");
  return f64_kernels;
}

template <class T>
T* pointer(const Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}
template <class T>
T* pointer(const OptionalTensor& t) {
  return t ? pointer<T>(*t) : nullptr;
}

// Calls f with a value of the statistics' type.
template <class F>
auto by_type(const Tensor& x, const F& f) {
  return x.scalar_type() == ScalarType::Double ? f(double()) : f(float());
}

// The number of partial maxima of each bound, which every block of a later pass reads.
template <class T>
int64_t bound_parts(const Call<T>& call) {
  return std::min<int64_t>(blocks(call.batch() * std::max(call.o.m(), call.o.n()), 8), 256);
}

// Computes what the tiles need first: the bounds, (4, parts), and with cosines the inverse norms of
// rows and of columns and their products with the call's own factors, (2, count) each. On the way,
// sets `finished` and the numbers of `clear` to 0.
template <class T>
std::vector<Tensor> measure(const Call<T>& call, const Kernels<T>& k, int* finished,
                            cudaStream_t stream, const std::vector<Tensor>& clear = {}) {
  const Operands& o = call.o;
  const Plan<T>& plan = call.plan;
  const bool alike = call.symmetric && plan.a == plan.b && plan.beta == plan.gamma;
  const int64_t m = call.batch() * o.m(), n = call.batch() * o.n();
  const int64_t parts = bound_parts(call);
  std::vector<Tensor> found{empty(o.x, {4, parts}, kScalarType<T>)};
  Sides<T> f{};
  f.side[0] = {plan.x, m, plan.a, plan.beta, nullptr, nullptr};
  f.side[1] = {plan.y, n, plan.b, plan.gamma, nullptr, nullptr};
  f.sides = alike ? 1 : 2, f.d = plan.d, f.wide = plan.wide, f.finished = finished;
  for (size_t c = 0; c < clear.size(); ++c)
    f.clear[c] = pointer<T>(clear[c]), f.cleared[c] = clear[c].numel();
  f.bounds = pointer<T>(found[0]);
  for (int s = 0; o.cosine && s < 2; ++s) {
    if (s < f.sides) {
      found.push_back(empty(o.x, {2, f.side[s].count}, kScalarType<T>));
      f.side[s].inverse = pointer<T>(found.back());
      f.side[s].product = f.side[s].inverse + f.side[s].count;
    } else {
      found.push_back(found.back());
    }
  }
  k.sides(f, static_cast<unsigned>(parts), stream);
  return found;
}

template <class T>
void apply(const Call<T>& call, const std::vector<Tensor>& measured, Plan<T>& plan) {
  const Operands& o = call.o;
  const int64_t parts = bound_parts(call), m = call.batch() * o.m(), n = call.batch() * o.n();
  expect_count(measured, "measured", o.cosine ? 3 : 1);
  plan.bounds = expected<T>(measured[0], "measured bounds", o.x, {4, parts});
  plan.bound_parts = static_cast<int>(parts);
  if (!o.cosine) return;
  plan.a = expected<T>(measured[1], "measured rows", o.x, {2, m}) + m;
  plan.b = expected<T>(measured[2], "measured columns", o.x, {2, n}) + n;
}

// The grid of a forward or backward pass.
template <class T>
Grid grid(const Kernels<T>& k, const Plan<T>& plan, Special special, bool backward, int row_parts,
          int64_t rows, int64_t cols, int64_t batch) {
  return spread(k.concurrent(plan, special, backward, row_parts), blocks(rows, k.tile_rows),
                blocks(cols, k.tile_cols(special)), batch);
}

// a call as operators receive it

#define CL_CALL                                                                   \
  Tensor x, OptionalTensor y, OptionalTensor scale, OptionalTensor row_scale,     \
      OptionalTensor col_scale, OptionalTensor row_bias, OptionalTensor col_bias, \
      std::vector<Tensor> rows, std::vector<Tensor> cols, Tensor code, Tensor values, bool cosine
#define CL_OPERANDS                                                   \
  {x,    y,    scale, row_scale, col_scale, row_bias,       col_bias, \
   rows, cols, code,  values,    cosine,    x.scalar_type()}

}  // namespace contrastloss::cuda
