// The operators contrastloss::cpu_gather and cpu_gather_backward: scores of columns that each row
// chooses, on CPU tensors.
#include "call.h"

namespace contrastloss::cpu {
namespace {

template <class T>
Tensor gather(const Operands& o, const Engine& e, const Tensor& index) {
  const int64_t m = o.m(), k = index.size(index.dim() - 1);
  Tensor found = empty(o.x, o.shape({m, k}), kScalarType<T>);
  for (int64_t item = 0; item < o.batch(); ++item) {
    Problem<T> p = problem<T>(o, item);
    const Norms<T> norms(o, e, p);
    Places<T> at;
    at.index = batch_item<int64_t>(index, "index", ScalarType::Long, o.batch(), m * k, item);
    at.k = k;
    at.scores = static_cast<T*>(found.data_ptr()) + item * m * k;
    e.of(T()).gather(p, at, threads(), run_parallel);
  }
  return found;
}

template <class T>
std::vector<Tensor> gather_backward(const Operands& o, const Engine& e, const Tensor& index,
                                    const Tensor& grad, int64_t needs) {
  const int64_t m = o.m(), k = index.size(index.dim() - 1);
  Gradients<T> found(o, needs);
  for (int64_t item = 0; item < o.batch(); ++item) {
    Problem<T> p = problem<T>(o, item);
    const Norms<T> norms(o, e, p);
    found.begin(p, item);
    Places<T> at;
    at.index = batch_item<int64_t>(index, "index", ScalarType::Long, o.batch(), m * k, item);
    at.k = k;
    at.grad = batch_item<T>(grad, "grad", kScalarType<T>, o.batch(), m * k, item);
    e.of(T()).gather_backward(p, at, threads(), run_gradients);
    found.finish(e, p, norms, item);
  }
  return found.tensors();
}

// ---- operators ----------------------------------------------------------------------------------

Tensor cpu_gather(Tensor x, OptionalTensor y, OptionalTensor scale, OptionalTensor row_scale,
                  OptionalTensor col_scale, OptionalTensor row_bias, OptionalTensor col_bias,
                  std::vector<Tensor> rows, std::vector<Tensor> cols, Tensor code, Tensor values,
                  bool cosine, ScalarType compute, int64_t isa, Tensor index) {
  const Operands o{x,    y,    scale, row_scale, col_scale, row_bias, col_bias,
                   rows, cols, code,  values,    cosine,    compute};
  auto run = x.scalar_type() == ScalarType::Double ? gather<double> : gather<float>;
  return run(o, engine(isa), index);
}

std::vector<Tensor> cpu_gather_backward(Tensor x, OptionalTensor y, OptionalTensor scale,
                                        OptionalTensor row_scale, OptionalTensor col_scale,
                                        OptionalTensor row_bias, OptionalTensor col_bias,
                                        std::vector<Tensor> rows, std::vector<Tensor> cols,
                                        Tensor code, Tensor values, bool cosine, ScalarType compute,
                                        int64_t isa, Tensor index, Tensor grad, int64_t needs) {
  const Operands o{x,    y,    scale, row_scale, col_scale, row_bias, col_bias,
                   rows, cols, code,  values,    cosine,    compute};
  auto run =
      x.scalar_type() == ScalarType::Double ? gather_backward<double> : gather_backward<float>;
  return run(o, engine(isa), index, grad, needs);
}

}  // namespace
}  // namespace contrastloss::cpu

STABLE_TORCH_LIBRARY_IMPL(contrastloss, CPU, m) {
  m.impl("cpu_gather", TORCH_BOX(&contrastloss::cpu::cpu_gather));
  m.impl("cpu_gather_backward", TORCH_BOX(&contrastloss::cpu::cpu_gather_backward));
}
