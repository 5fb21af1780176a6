// The operator contrastloss::cpu_topk: the k best columns of every row on CPU tensors.
#include "call.h"

namespace contrastloss::cpu {
namespace {

// Ignore lists: offsets (B M + 1) ascend from 0 to the number of listed columns.
struct IgnoreLists {
  const int64_t *offsets = nullptr, *columns = nullptr;

  IgnoreLists(const std::vector<Tensor>& ignore, int64_t rows) {
    if (ignore.empty()) return;
    STD_TORCH_CHECK(ignore.size() == 2, "ignore: got ", ignore.size(),
                    " tensors, expected offsets and columns");
    const int64_t listed = ignore[1].numel();
    require(ignore[0], "ignore offsets", ScalarType::Long, rows + 1);
    require(ignore[1], "ignore columns", ScalarType::Long, listed);
    offsets = static_cast<const int64_t*>(ignore[0].data_ptr());
    columns = static_cast<const int64_t*>(ignore[1].data_ptr());
    STD_TORCH_CHECK(offsets[0] == 0 && offsets[rows] == listed,
                    "ignore offsets: expected 0 first and the number of columns last");
    for (int64_t i = 0; i < rows; ++i)
      STD_TORCH_CHECK(offsets[i] <= offsets[i + 1], "ignore offsets: not ascending");
    for (int64_t i = 0; i < rows; ++i)
      STD_TORCH_CHECK(std::is_sorted(columns + offsets[i], columns + offsets[i + 1]),
                      "ignore columns: not ascending");
  }
};

template <class T>
std::vector<Tensor> topk(const Operands& o, const Engine& e, int64_t k, const OptionalTensor& lower,
                         const OptionalTensor& upper, const std::vector<Tensor>& ignore,
                         const OptionalTensor& row_keys, const OptionalTensor& col_keys,
                         double beta) {
  const int64_t m = o.m(), n = o.n(), batch = o.batch();
  STD_TORCH_CHECK(k >= 1, "k: got ", k, ", expected at least 1");
  STD_TORCH_CHECK(row_keys.has_value() == col_keys.has_value(),
                  "keys: got only row keys or only column keys, expected both or neither");
  const IgnoreLists lists(ignore, batch * m);
  std::vector<Tensor> found{empty(o.x, o.shape({m, k}), kScalarType<T>),
                            empty(o.x, o.shape({m, k}), ScalarType::Long)};
  for (int64_t item = 0; item < batch; ++item) {
    Problem<T> p = problem<T>(o, item);
    STD_TORCH_CHECK(p.channels.size() == 1 && p.channels[0].kind == Kind::MAX,
                    "program: expected one MAX channel");
    const Norms<T> norms(o, e, p);
    Selection<T> s;
    s.k = k;
    if (lower) s.lower = batch_item<T>(*lower, "lower", kScalarType<T>, batch, m, item);
    if (upper) s.upper = batch_item<T>(*upper, "upper", kScalarType<T>, batch, m, item);
    if (lists.offsets) s.offsets = lists.offsets + item * m, s.columns = lists.columns;
    s.beta = static_cast<T>(beta);
    if (row_keys) {
      s.row_keys = batch_item<uint32_t>(*row_keys, "row_keys", ScalarType::Int, batch, 2 * m, item);
      s.col_keys = batch_item<uint32_t>(*col_keys, "col_keys", ScalarType::Int, batch, 2 * n, item);
    }
    s.values = static_cast<T*>(found[0].data_ptr()) + item * m * k;
    s.indices = static_cast<int64_t*>(found[1].data_ptr()) + item * m * k;
    e.of(T()).topk(p, s, threads(), run_parallel);
  }
  return found;
}

std::vector<Tensor> cpu_topk(Tensor x, OptionalTensor y, OptionalTensor scale,
                             OptionalTensor row_scale, OptionalTensor col_scale,
                             OptionalTensor row_bias, OptionalTensor col_bias,
                             std::vector<Tensor> rows, std::vector<Tensor> cols, Tensor code,
                             Tensor values, bool cosine, ScalarType compute, int64_t isa, int64_t k,
                             OptionalTensor lower, OptionalTensor upper, std::vector<Tensor> ignore,
                             OptionalTensor row_keys, OptionalTensor col_keys, double beta) {
  const Operands o{x,    y,    scale, row_scale, col_scale, row_bias, col_bias,
                   rows, cols, code,  values,    cosine,    compute};
  auto run = x.scalar_type() == ScalarType::Double ? topk<double> : topk<float>;
  return run(o, engine(isa), k, lower, upper, ignore, row_keys, col_keys, beta);
}

}  // namespace
}  // namespace contrastloss::cpu

STABLE_TORCH_LIBRARY_IMPL(contrastloss, CPU, m) {
  m.impl("cpu_topk", TORCH_BOX(&contrastloss::cpu::cpu_topk));
}
