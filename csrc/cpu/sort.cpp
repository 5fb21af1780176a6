// The operators contrastloss::cpu_sort and cpu_sort_backward: relaxed sorting networks on CPU
// tensors. contrastloss/backends/cpu.py prepares the operands.
#include "call.h"

namespace contrastloss::cpu {
namespace {

template <class T>
const T* floats(const Tensor& t, const char* name, int64_t numel) {
  require(t, name, kScalarType<T>, numel);
  return static_cast<const T*>(t.data_ptr());
}

template <class T>
SortProblem<T> read_sort(const Tensor& x, const Tensor& t, const Tensor& steepness,
                         const Tensor& ends, double art_lambda, int64_t swap) {
  STD_TORCH_CHECK(x.dim() == 2 && t.dim() == 3, "x, t: expected 2 and 3 dimensions");
  STD_TORCH_CHECK(swap >= 0 && swap < 6, "distribution: got ", swap, ", expected 0 to 5");
  SortProblem<T> p;
  p.rows = x.size(0), p.wires = x.size(1), p.masses = t.size(1);
  p.shared = t.size(0) == 1 && p.rows != 1;
  p.x = floats<T>(x, "x", p.rows * p.wires);
  p.t = floats<T>(t, "t", (p.shared ? 1 : p.rows) * p.masses * p.wires);
  p.beta = floats<T>(steepness, "steepness", p.rows);
  p.comparators = ends.numel() / 2;
  require(ends, "comparators", ScalarType::Int, 2 * p.comparators);
  p.ends = static_cast<const int32_t*>(ends.data_ptr());
  for (int64_t c = 0; c < 2 * p.comparators; ++c)
    STD_TORCH_CHECK(p.ends[c] >= 0 && p.ends[c] < p.wires, "comparators: no such wire");
  p.art_lambda = static_cast<T>(art_lambda);
  p.swap = static_cast<Swap>(swap);
  return p;
}

template <class T>
std::vector<Tensor> sort(const Tensor& x, SortProblem<T> p, const Engine& e) {
  std::vector<Tensor> found{empty(x, {p.rows, p.wires}, kScalarType<T>),
                            empty(x, {p.rows, p.masses, p.wires}, kScalarType<T>)};
  p.sorted = static_cast<T*>(found[0].data_ptr());
  p.mass = static_cast<T*>(found[1].data_ptr());
  e.of(T()).sort(p, threads(), run_parallel);
  return found;
}

template <class T>
std::vector<Tensor> sort_backward(const Tensor& x, SortProblem<T> p, const Engine& e,
                                  const Tensor& grad_sorted, const Tensor& grad_mass,
                                  int64_t needs) {
  p.grad_sorted = floats<T>(grad_sorted, "grad_sorted", p.rows * p.wires);
  p.grad_mass = floats<T>(grad_mass, "grad_mass", p.rows * p.masses * p.wires);
  STD_TORCH_CHECK(!(needs & 2) || !p.shared, "t: no gradient for a t that all rows share");
  std::vector<Tensor> found;
  auto wanted = [&](int64_t bit, const std::vector<int64_t>& shape) -> T* {
    if (!(needs & bit)) return nullptr;
    found.push_back(empty(x, shape, kScalarType<T>));
    return static_cast<T*>(found.back().data_ptr());
  };
  p.dx = wanted(1, {p.rows, p.wires});
  p.dt = wanted(2, {p.rows, p.masses, p.wires});
  p.dbeta = wanted(4, {p.rows});
  e.of(T()).sort_backward(p, threads(), run_parallel);
  return found;
}

std::vector<Tensor> cpu_sort(Tensor x, Tensor t, Tensor steepness, Tensor ends, double art_lambda,
                             int64_t swap, int64_t isa) {
  if (x.scalar_type() == ScalarType::Double)
    return sort(x, read_sort<double>(x, t, steepness, ends, art_lambda, swap), engine(isa));
  return sort(x, read_sort<float>(x, t, steepness, ends, art_lambda, swap), engine(isa));
}

std::vector<Tensor> cpu_sort_backward(Tensor x, Tensor t, Tensor steepness, Tensor ends,
                                      double art_lambda, int64_t swap, int64_t isa,
                                      Tensor grad_sorted, Tensor grad_mass, int64_t needs) {
  if (x.scalar_type() == ScalarType::Double)
    return sort_backward(x, read_sort<double>(x, t, steepness, ends, art_lambda, swap), engine(isa),
                         grad_sorted, grad_mass, needs);
  return sort_backward(x, read_sort<float>(x, t, steepness, ends, art_lambda, swap), engine(isa),
                       grad_sorted, grad_mass, needs);
}

}  // namespace
}  // namespace contrastloss::cpu

STABLE_TORCH_LIBRARY_IMPL(contrastloss, CPU, m) {
  m.impl("cpu_sort", TORCH_BOX(&contrastloss::cpu::cpu_sort));
  m.impl("cpu_sort_backward", TORCH_BOX(&contrastloss::cpu::cpu_sort_backward));
}
