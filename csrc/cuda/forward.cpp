// The forward pass of pair_stats on CUDA tensors, and what is measured first.
#include "call.h"

namespace contrastloss::cuda {
namespace {

// Up to this many rows plus columns, the last block of a forward pass merges the slices.
constexpr int64_t kSmall = 4096;

// Sets the views of a forward pass, and where their states and values go.
template <class T>
void plan_forward(Call<T>& call, ForwardPlan<T>& f) {
  const bool mirror = call.mirrors();
  for (const Channel<T>& c : call.problem.channels) {
    Output<T>& out = f.output[f.channels++];
    out.formula = static_cast<short>(formula(c.kind, c.psi));
    out.column = c.column;
    const auto along = [&](bool transposed, bool column) {
      View<T>& v = call.view(
          c, transposed, [&](const View<T>& u) { return (column ? u.col_part : u.row_part) < 0; });
      int& parts = column ? f.col_parts : f.row_parts;
      (column ? v.col_part : v.row_part) = static_cast<short>(parts);
      (column ? out.at.col : out.at.row) = parts;
      parts += components(out.formula);
    };
    along(false, c.column);
    if (call.symmetric) along(!(mirror && !c.shift), !c.column);
  }
}

template <class T>
std::vector<Tensor> forward(const Operands& o, bool tf32) {
  Call<T> call(o);
  call.plan.tf32 = tf32;
  call.expect_wide();
  ForwardPlan<T> f{};
  plan_forward(call, f);
  std::vector<Tensor> outputs;
  const auto output = [&](bool column, ScalarType type) {
    outputs.push_back(empty(o.x, o.shape({call.length(column)}), type));
    return outputs.back().data_ptr();
  };
  for (int c = 0; c < f.channels; ++c) {
    Output<T>& out = f.output[c];
    out.value = static_cast<T*>(output(out.column, kScalarType<T>));
    if (out.formula == kMax) out.more = output(out.column, ScalarType::Long);
    if (out.formula == kExpect) out.more = output(out.column, kScalarType<T>);
  }
  if (call.batch() == 0 || o.m() + o.n() == 0) return outputs;

  const Device device(o.x);
  const Kernels<T>& k = kernels(o.x.scalar_type(), T());
  const Special special = k.special ? call.special() : Special::NONE;
  const Grid g = grid(k, call.plan, special, false, f.row_parts, o.m(), o.n(), call.batch());
  const Tensor rows = empty(o.x, {f.row_parts, g.batch, g.down, o.m()}, kScalarType<T>);
  const Tensor cols = empty(o.x, {f.col_parts, g.batch, g.across, o.n()}, kScalarType<T>);
  const Tensor finished = empty(o.x, {1}, ScalarType::Int);
  f.rows = pointer<T>(rows), f.cols = pointer<T>(cols);
  if (o.m() + o.n() <= kSmall) f.finished = pointer<int>(finished);
  const std::vector<Tensor> measured = measure(call, k, pointer<int>(finished), device.stream());
  apply(call, measured, call.plan);
  f.plan = call.plan;
  k.forward(f, special, g, device.stream());
  return outputs;
}

// ---- operators ----------------------------------------------------------------------------------

std::vector<Tensor> cuda_forward(CL_CALL, bool tf32) {
  const Operands o CL_OPERANDS;
  return by_type(x, [&](auto t) { return forward<decltype(t)>(o, tf32); });
}

std::vector<Tensor> cuda_measure(CL_CALL) {
  const Operands o CL_OPERANDS;
  return by_type(x, [&](auto t) {
    using T = decltype(t);
    const Device device(x);
    return measure(Call<T>(o), kernels(x.scalar_type(), t), nullptr, device.stream());
  });
}

}  // namespace
}  // namespace contrastloss::cuda

STABLE_TORCH_LIBRARY_IMPL(contrastloss, CL_DISPATCH_KEY, m) {
  m.impl("cuda_forward", TORCH_BOX(&contrastloss::cuda::cuda_forward));
  m.impl("cuda_measure", TORCH_BOX(&contrastloss::cuda::cuda_measure));
}
