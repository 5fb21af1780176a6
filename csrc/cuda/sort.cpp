// The operators contrastloss::cuda_sort and cuda_sort_backward: relaxed sorting networks on CUDA
// tensors. contrastloss/backends/cuda.py prepares the operands.
#include "sort.h"

#include <algorithm>

#include "../operands.h"
#include "check.h"
#include "launch.h"

namespace contrastloss::cuda {
namespace {

constexpr int64_t kSharedBytes = 64 << 10;  // per block; networks are cut into segments that fit
constexpr int64_t kScratchBytes = int64_t(64) << 20;  // per launch, for at least one row
constexpr int64_t kMost = int64_t(1) << 30;           // kernels count in int

const int* integers(const Tensor& t, const char* name, const Tensor& x,
                    const std::vector<int64_t>& shape) {
  expect(t, name, x, ScalarType::Int, shape);
  return static_cast<const int*>(t.data_ptr());
}

// A network applied to the rows of x.
struct Network {
  const Tensor &x, &t, &steepness, &ends, &starts;
  double art_lambda;
  int64_t swap;

  int64_t rows() const { return x.size(0); }
  int64_t wires() const { return x.size(1); }
  int64_t masses() const { return t.size(1); }

  template <class T>
  SortPlan<T> plan(bool backward) const {
    STD_TORCH_CHECK(x.dim() == 2 && t.dim() == 3, "x, t: expected 2 and 3 dimensions");
    STD_TORCH_CHECK(ends.dim() == 2 && starts.dim() == 1, "comparators: expected 2 dimensions");
    const int64_t count = ends.size(0), layers = starts.size(0) - 1;
    expect_range("distribution", swap, 0, 5);
    expect_range("x: numbers of a row", wires(), 1, kMostWires);
    expect_range("t: masses", masses(), 0, kMost);
    expect_range("comparators", count, 0, kMost);
    expect_range("layers", layers, 0, kMost);
    SortPlan<T> p{};
    p.wires = static_cast<int>(wires()), p.masses = static_cast<int>(masses());
    p.layers = static_cast<int>(layers), p.comparators = static_cast<int>(count);
    p.shared = t.size(0) == 1 && rows() != 1;
    p.ends = integers(ends, "comparators", x, {count, 2});
    p.starts = integers(starts, "layers", x, {layers + 1});
    p.x = expected<T>(x, "x", x, {rows(), wires()});
    p.t = expected<T>(t, "t", x, {p.shared ? 1 : rows(), masses(), wires()});
    p.beta = expected<T>(steepness, "steepness", x, {rows()});
    p.art_lambda = static_cast<T>(art_lambda);
    p.team = 1;
    while (2 * p.team <= wires() / 2 && p.team < 512) p.team *= 2;
    p.teams = std::max(1, 128 / p.team);
    const auto bytes = [&](int64_t segment) {
      return p.teams * sort_shared(wires(), segment, backward) * int64_t(sizeof(T));
    };
    while (p.teams > 1 && p.teams * p.team > 32 && bytes(1) > kSharedBytes) p.teams /= 2;
    p.segment = std::max(p.layers, 1);
    while (p.segment > 1 && bytes(p.segment) > kSharedBytes) p.segment = (p.segment + 1) / 2;
    p.segments = std::max(1, (p.layers + p.segment - 1) / p.segment);
    return p;
  }
};

// Launches as many rows at a time as fit in the scratch memory.
template <class T, class Offset>
void run(const Network& network, SortPlan<T> p, bool backward, const Offset& offset) {
  const Device device(network.x);
  const int64_t per_row = sort_scratch(p.wires, p.masses, p.segments, backward);
  const int64_t most = kScratchBytes / (std::max<int64_t>(per_row, 1) * int64_t(sizeof(T)));
  int64_t step = per_row ? std::max<int64_t>(most / p.teams, 1) * p.teams : network.rows();
  step = std::min<int64_t>(step, int64_t(1) << 30);
  const int64_t at_once = (std::min(step, network.rows()) + p.teams - 1) / p.teams * p.teams;
  const Tensor scratch = empty(network.x, {at_once * per_row}, kScalarType<T>);
  p.scratch = static_cast<T*>(scratch.data_ptr());
  for (int64_t first = 0; first < network.rows(); first += step) {
    SortPlan<T> part = p;
    part.rows = static_cast<int>(std::min(step, network.rows() - first));
    const auto move = [first](auto*& pointer, int64_t length) {
      if (pointer) pointer += first * length;
    };
    move(part.x, p.wires), move(part.beta, 1);
    if (!p.shared) move(part.t, int64_t(p.masses) * p.wires);
    offset(part, move);
    launch_sort(part, static_cast<Swap>(network.swap), backward, device.stream());
  }
}

template <class T>
std::vector<Tensor> sort(const Network& network) {
  SortPlan<T> p = network.plan<T>(false);
  const int64_t n = network.wires(), masses = network.masses();
  std::vector<Tensor> found{empty(network.x, {network.rows(), n}, kScalarType<T>),
                            empty(network.x, {network.rows(), masses, n}, kScalarType<T>)};
  p.sorted = static_cast<T*>(found[0].data_ptr());
  p.mass = static_cast<T*>(found[1].data_ptr());
  run(network, p, false, [&](SortPlan<T>& part, const auto& move) {
    move(part.sorted, n), move(part.mass, masses * n);
  });
  return found;
}

template <class T>
std::vector<Tensor> sort_backward(const Network& network, const Tensor& grad_sorted,
                                  const Tensor& grad_mass, int64_t needs) {
  SortPlan<T> p = network.plan<T>(true);
  const int64_t rows = network.rows(), n = network.wires(), masses = network.masses();
  p.grad_sorted = expected<T>(grad_sorted, "grad_sorted", network.x, {rows, n});
  p.grad_mass = expected<T>(grad_mass, "grad_mass", network.x, {rows, masses, n});
  STD_TORCH_CHECK(!(needs & 2) || !p.shared, "t: no gradient for a t that all rows share");
  std::vector<Tensor> found;
  const auto wanted = [&](int64_t bit, std::vector<int64_t> shape) -> T* {
    if (!(needs & bit)) return nullptr;
    found.push_back(empty(network.x, shape, kScalarType<T>));
    return static_cast<T*>(found.back().data_ptr());
  };
  p.dx = wanted(1, {rows, n});
  p.dt = wanted(2, {rows, masses, n});
  p.dbeta = wanted(4, {rows});
  run(network, p, true, [&](SortPlan<T>& part, const auto& move) {
    move(part.grad_sorted, n), move(part.grad_mass, masses * n);
    move(part.dx, n), move(part.dt, masses * n), move(part.dbeta, 1);
  });
  return found;
}

std::vector<Tensor> cuda_sort(Tensor x, Tensor t, Tensor steepness, Tensor ends, double art_lambda,
                              int64_t swap, Tensor starts) {
  const Network network{x, t, steepness, ends, starts, art_lambda, swap};
  if (x.scalar_type() == ScalarType::Double) return sort<double>(network);
  return sort<float>(network);
}

std::vector<Tensor> cuda_sort_backward(Tensor x, Tensor t, Tensor steepness, Tensor ends,
                                       double art_lambda, int64_t swap, Tensor starts,
                                       Tensor grad_sorted, Tensor grad_mass, int64_t needs) {
  const Network network{x, t, steepness, ends, starts, art_lambda, swap};
  if (x.scalar_type() == ScalarType::Double)
    return sort_backward<double>(network, grad_sorted, grad_mass, needs);
  return sort_backward<float>(network, grad_sorted, grad_mass, needs);
}

}  // namespace
}  // namespace contrastloss::cuda

STABLE_TORCH_LIBRARY_IMPL(contrastloss, CL_DISPATCH_KEY, m) {
  m.impl("cuda_sort", TORCH_BOX(&contrastloss::cuda::cuda_sort));
  m.impl("cuda_sort_backward", TORCH_BOX(&contrastloss::cuda::cuda_sort_backward));
}
