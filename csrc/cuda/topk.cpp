// The operator contrastloss::cuda_topk: the k best columns of every row on CUDA tensors.
#include "topk.h"

#include "call.h"

namespace contrastloss::cuda {
namespace {

// Columns per chunk. The first chunk is small, so that lists soon have floors and later chunks,
// each twice as wide, add few candidates. For a few rows, chunks can be wide.
constexpr int64_t kFirst = 1024, kWide = 1 << 16;
template <class T>
constexpr int64_t kLeast = sizeof(T) == 8 ? 2048 : 4096;

// The operands of a top-k in addition to those of the scores: contrastloss/backends/topk.py.
struct Selected {
  int64_t k;
  const OptionalTensor &lower, &upper;
  const std::vector<Tensor>& ignore;
  const OptionalTensor &row_keys, &col_keys;
  double beta;
  int64_t list_bytes;
};

// How rows and columns are cut so that lists take at most `bytes` or, if that is too little, as few
// as possible: into parts of several batch items with all of their rows, or of some rows of one
// item.
struct Cut {
  int64_t items, rows, widest, capacity;

  template <class T>
  static Cut of(T, int64_t batch, int64_t m, int64_t n, int64_t k, int64_t bytes) {
    constexpr int64_t kTile = 128;  // rows
    const int64_t fit = bytes / int64_t(sizeof(Packed<T>));
    int64_t rows = std::max<int64_t>(fit / std::max<int64_t>(std::min(k + kLeast<T>, n), 1), 1);
    Cut cut{};
    cut.items = std::min(std::max<int64_t>(rows / m, 1), batch);
    if (rows < m) {  // equal parts, of whole tiles
      if (rows > kTile) rows = rows / kTile * kTile;
      const int64_t even = blocks(m, blocks(m, rows));
      rows = rows < kTile ? even : std::min<int64_t>(blocks(even, kTile) * kTile, rows);
    }
    cut.rows = std::min(rows, m);
    const int64_t room = fit / (cut.items * cut.rows) - k;
    cut.widest = std::min(std::max(room, kLeast<T>), kWide);
    cut.capacity = std::max<int64_t>(std::min(k + cut.widest, n), 1);
    return cut;
  }
};

uint32_t* keys(const OptionalTensor& t, const char* name, const Operands& o, int64_t length) {
  if (!t) return nullptr;
  expect(*t, name, o.x, ScalarType::Int, o.shape({length, 2}));
  return pointer<uint32_t>(*t);
}

template <class T>
TopkPlan<T> plan(Call<T>& call, const Selected& s) {
  const Operands& o = call.o;
  const int64_t batch = call.batch(), m = o.m(), n = o.n();
  expect_range("k", s.k, 1, (int64_t(1) << 31) - 1);
  STD_TORCH_CHECK(s.row_keys.has_value() == s.col_keys.has_value(),
                  "keys: got only row keys or only column keys, expected both or neither");
  const auto& channels = call.problem.channels;
  STD_TORCH_CHECK(channels.size() == 1 && channels[0].kind == Kind::MAX && !channels[0].column &&
                      !call.plan.terms,
                  "program: expected one MAX channel of rows, without weights");
  call.view(channels[0], false, [](const View<T>&) { return false; });
  TopkPlan<T> f{};
  f.plan = call.plan;
  f.plan.symmetric = false;  // the walk visits all tiles; a test excludes (i, i)
  f.sampled = s.row_keys.has_value();
  f.beta = static_cast<T>(s.beta);
  f.lower = expected<T>(s.lower, "lower", o.x, o.shape({m}));
  f.upper = expected<T>(s.upper, "upper", o.x, o.shape({m}));
  f.row_keys = keys(s.row_keys, "row_keys", o, m);
  f.col_keys = keys(s.col_keys, "col_keys", o, n);
  if (!s.ignore.empty()) {
    expect_count(s.ignore, "ignore", 2);
    f.listed = s.ignore[1].numel();
    expect(s.ignore[0], "ignore offsets", o.x, ScalarType::Long, {batch * m + 1});
    expect(s.ignore[1], "ignore columns", o.x, ScalarType::Long, {f.listed});
    f.offsets = pointer<int64_t>(s.ignore[0]), f.columns = pointer<int64_t>(s.ignore[1]);
  }
  f.lists.k = static_cast<int>(std::min(s.k, n));
  f.lists.m = f.plan.m, f.lists.wanted = static_cast<int>(s.k);
  f.lists.sign = f.sampled ? T(1) : channels[0].sign;
  return f;
}

// The plan with pointers to another first batch item.
template <class T>
TopkPlan<T> at_item(TopkPlan<T> f, int64_t item, int64_t element_bytes) {
  Plan<T>& p = f.plan;
  const int64_t rows = item * p.m, cols = item * p.n;
  const auto move = [](auto*& v, int64_t by) { v = v ? v + by : v; };
  p.x = static_cast<const char*>(p.x) + rows * p.d * element_bytes;
  p.y = static_cast<const char*>(p.y) + cols * p.d * element_bytes;
  move(p.a, rows), move(p.beta, rows), move(p.b, cols), move(p.gamma, cols);
  for (int k = 0; k < p.ids; ++k) move(p.id[k].row, rows), move(p.id[k].col, cols);
  move(f.lower, rows), move(f.upper, rows), move(f.offsets, rows);
  move(f.row_keys, 2 * rows), move(f.col_keys, 2 * cols);
  move(f.lists.values, rows * f.lists.wanted), move(f.lists.indices, rows * f.lists.wanted);
  return f;
}

// Runs all columns against one part of the rows.
template <class T>
void run(TopkPlan<T> f, int64_t widest, Element element, cudaStream_t stream) {
  launch_begin(f.lists, stream);
  int64_t width = std::min(kFirst, widest);
  for (int64_t j = 0; j < f.plan.n; j += width, width = std::min(2 * width, widest)) {
    f.j0 = static_cast<int>(j);
    f.j1 = static_cast<int>(std::min<int64_t>(j + width, f.plan.n));
    launch_candidates(f, element, stream);
    if (f.j1 < f.plan.n) launch_select(f.lists, false, stream);
  }
  launch_select(f.lists, true, stream);
}

template <class T>
std::vector<Tensor> topk(const Operands& o, const Selected& s) {
  Call<T> call(o);
  call.expect_wide();
  TopkPlan<T> f = plan(call, s);
  const int64_t batch = call.batch(), m = o.m(), n = o.n();
  std::vector<Tensor> found{empty(o.x, o.shape({m, s.k}), kScalarType<T>),
                            empty(o.x, o.shape({m, s.k}), ScalarType::Long)};
  if (batch * m == 0) return found;
  f.lists.values = pointer<T>(found[0]), f.lists.indices = pointer<int64_t>(found[1]);

  const Device device(o.x);
  std::vector<Tensor> measured;
  if (o.cosine) {
    measured = measure(call, kernels(o.x.scalar_type(), T()), nullptr, device.stream());
    apply(call, measured, f.plan);
  }
  const Cut cut = Cut::of(T(), batch, m, n, f.lists.k, s.list_bytes);
  const int64_t slots = cut.items * cut.rows;
  constexpr int64_t kWords = sizeof(Packed<T>) / 8;
  const Tensor all = empty(o.x, {slots, cut.capacity, kWords}, ScalarType::Long);
  const Tensor counts = empty(o.x, {slots}, ScalarType::Int);
  const Tensor floors = empty(o.x, {slots}, kScalarType<T>);
  f.lists.all = pointer<Packed<T>>(all), f.lists.counts = pointer<int>(counts);
  f.lists.floors = pointer<T>(floors);
  f.lists.capacity = static_cast<int>(cut.capacity);
  const Element type = element(o.x.scalar_type());
  for (int64_t item = 0; item < batch; item += cut.items) {
    TopkPlan<T> part = at_item(f, item, bytes(type));
    part.lists.items = static_cast<int>(std::min(cut.items, batch - item));
    for (int64_t i = 0; i < m; i += cut.rows) {
      part.lists.i0 = static_cast<int>(i);
      part.lists.rows = static_cast<int>(std::min(cut.rows, m - i));
      run(part, cut.widest, type, device.stream());
    }
  }
  return found;
}

std::vector<Tensor> cuda_topk(CL_CALL, int64_t k, OptionalTensor lower, OptionalTensor upper,
                              std::vector<Tensor> ignore, OptionalTensor row_keys,
                              OptionalTensor col_keys, double beta, int64_t list_bytes) {
  const Operands o CL_OPERANDS;
  const Selected s{k, lower, upper, ignore, row_keys, col_keys, beta, list_bytes};
  return by_type(x, [&](auto t) { return topk<decltype(t)>(o, s); });
}

}  // namespace
}  // namespace contrastloss::cuda

STABLE_TORCH_LIBRARY_IMPL(contrastloss, CL_DISPATCH_KEY, m) {
  m.impl("cuda_topk", TORCH_BOX(&contrastloss::cuda::cuda_topk));
}
