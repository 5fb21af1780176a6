// The operators contrastloss::cuda_gather and cuda_gather_backward: scores of columns that each row
// chooses, on CUDA tensors. contrastloss/backends/cuda.py prepares the operands.
#include "gather.h"

#include "call.h"

namespace contrastloss::cuda {
namespace {

inline const GatherKernels<float>& gather_kernels(ScalarType type, float) {
  if (type == ScalarType::BFloat16) return gather_bf16;
  if (type == ScalarType::Half) return gather_f16;
  STD_TORCH_CHECK(type == ScalarType::Float, "x: unsupported dtype");
  return gather_f32;
}
inline const GatherKernels<double>& gather_kernels(ScalarType type, double) {
  STD_TORCH_CHECK(type == ScalarType::Double, "x: unsupported dtype");
  return gather_f64;
}

const int64_t* integers(const Tensor& t, const char* name, const Operands& o,
                        const std::vector<int64_t>& shape) {
  expect(t, name, o.x, ScalarType::Long, shape);
  return pointer<int64_t>(t);
}

template <class T>
class Gather {
 public:
  Gather(const Operands& o, const Tensor& index)
      : call_(o), kernels_(gather_kernels(o.x.scalar_type(), T())) {
    STD_TORCH_CHECK(index.dim() == o.x.dim(), "index: got ", index.dim(), " dimensions, expected ",
                    o.x.dim());
    const Plan<T>& plan = call_.plan;
    f.x = plan.x, f.y = plan.y, f.m = plan.m, f.n = plan.n, f.d = plan.d, f.wide = plan.wide;
    f.rows = o.batch() * f.m, f.cols = o.batch() * f.n, f.k = index.size(index.dim() - 1);
    f.index = integers(index, "index", o, o.shape({o.m(), f.k}));
    f.scale = plan.scale;
    f.beta = plan.beta, f.gamma = plan.gamma;
    for (f.team = 1; f.team < 32 && f.team * kernels_.per_lane < f.d;) f.team *= 2;
  }

  // Sets the factors; with cosines they include the inverse norms.
  void factors(const std::vector<Tensor>& measured) {
    Plan<T> plan = call_.plan;
    if (call_.o.cosine) apply(call_, measured, plan);
    f.a = plan.a, f.b = plan.b;
  }

  Tensor scores(cudaStream_t stream) {
    const Operands& o = call_.o;
    std::vector<Tensor> measured;  // lives until the kernel has been launched
    if (o.cosine) measured = measure(call_, kernels(o.x.scalar_type(), T()), nullptr, stream);
    factors(measured);
    const Tensor found = empty(o.x, o.shape({o.m(), f.k}), kScalarType<T>);
    kernels_.scores(f, pointer<T>(found), stream);
    return found;
  }

  // Computes <x_i, y_j> of every entry.
  Tensor dots(cudaStream_t stream) const {
    GatherPlan<T> plain = f;
    plain.scale = plain.a = plain.b = plain.beta = plain.gamma = nullptr;
    const Tensor found = empty(call_.o.x, {f.rows * f.k}, kScalarType<T>);
    kernels_.scores(plain, pointer<T>(found), stream);
    return found;
  }

  void sums(const GatherSums<T>& s, cudaStream_t stream) {
    if (!s.vector && !s.bias && !s.dot) return;
    // a block per row or column if its entries keep the teams of several warps busy
    f.block = f.rows * f.k >= kLong * (s.starts ? f.cols : f.rows);
    kernels_.sums(f, s, stream);
  }

  GatherPlan<T> f{};

 private:
  static constexpr int64_t kLong = 128;

  const Call<T> call_;
  const GatherKernels<T>& kernels_;
};

// Returns the sums that are needed, in this order: those for dx and dy (only dx in a symmetric
// problem), d row_bias and d col_bias, sum_k g_ik b_j <x_i, y_j> of every row, and sum g_ik a_i
// <x_i, y_j> of every column. With cosines, the caller still has to remove the radial part and the
// inverse norms.
template <class T>
std::vector<Tensor> backward(const Operands& o, const Tensor& index, const Tensor& grad,
                             const OptionalTensor& order, const OptionalTensor& starts,
                             const std::vector<Tensor>& measured, int64_t needs) {
  enum { X = 1, Y = 2, SCALE = 4, ROW_SCALE = 8, COL_SCALE = 16, ROW_BIAS = 32, COL_BIAS = 64 };
  const Device device(o.x);
  Gather<T> gather(o, index);
  gather.factors(measured);
  const int64_t m = o.m(), n = o.n(), d = o.d(), entries = gather.f.rows * gather.f.k;
  std::vector<Tensor> found;
  const auto wanted = [&](bool some, std::initializer_list<int64_t> shape) -> T* {
    if (!some) return nullptr;
    found.push_back(empty(o.x, o.shape(shape), kScalarType<T>));
    return pointer<T>(found.back());
  };
  GatherSums<T> row{}, col{};
  row.grad = col.grad = expected<T>(grad, "grad", o.x, o.shape({m, gather.f.k}));
  row.vector = wanted(needs & X, {m, d});
  col.vector = o.y ? wanted(needs & Y, {n, d}) : row.vector;
  col.add = !o.y;
  row.bias = wanted(needs & ROW_BIAS, {m});
  col.bias = wanted(needs & COL_BIAS, {n});
  row.dot = wanted(needs & (SCALE | ROW_SCALE), {m});
  col.dot = wanted(needs & COL_SCALE, {n});
  Tensor dots;
  if (row.dot || col.dot) {
    dots = gather.dots(device.stream());
    row.dots = col.dots = pointer<T>(dots);
  }
  gather.sums(row, device.stream());
  if (!col.vector && !col.bias && !col.dot) return found;
  STD_TORCH_CHECK(order && starts, "order, starts: expected both for sums over columns");
  col.order = integers(*order, "order", o, {entries});
  col.starts = integers(*starts, "starts", o, {gather.f.cols + 1});
  gather.sums(col, device.stream());
  return found;
}

// ---- operators ----------------------------------------------------------------------------------

Tensor cuda_gather(CL_CALL, Tensor index) {
  const Operands o CL_OPERANDS;
  return by_type(x, [&](auto t) {
    const Device device(x);
    return Gather<decltype(t)>(o, index).scores(device.stream());
  });
}

std::vector<Tensor> cuda_gather_backward(CL_CALL, Tensor index, Tensor grad, OptionalTensor order,
                                         OptionalTensor starts, std::vector<Tensor> measured,
                                         int64_t needs) {
  const Operands o CL_OPERANDS;
  return by_type(x, [&](auto t) {
    return backward<decltype(t)>(o, index, grad, order, starts, measured, needs);
  });
}

}  // namespace
}  // namespace contrastloss::cuda

STABLE_TORCH_LIBRARY_IMPL(contrastloss, CL_DISPATCH_KEY, m) {
  m.impl("cuda_gather", TORCH_BOX(&contrastloss::cuda::cuda_gather));
  m.impl("cuda_gather_backward", TORCH_BOX(&contrastloss::cuda::cuda_gather_backward));
}
