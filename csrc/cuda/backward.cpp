// The backward pass of pair_stats on CUDA tensors: blocks of H, sums over G, and the gradients of x
// and y from the products with H.
#include <bitset>

#include "call.h"
#include "product.h"

namespace contrastloss::cuda {
namespace {

// The views of a backward pass and its sums. `totals` lists the sums that are needed, in this
// order: row bias, column bias, row dot, column dot, the row shifts, the column shifts.
template <class T>
class BackwardCall {
 public:
  BackwardCall(const Operands& o, const std::vector<Tensor>& outputs,
               const std::vector<Tensor>& grads, int64_t live, int64_t needs)
      : call(o) {
    call.expect_wide();
    const bool sums = needs & (DROW_SCALE | DCOL_SCALE | DROW_BIAS | DCOL_BIAS);
    mirror_ = call.mirrors() && !sums;
    want(needs & DROW_BIAS, false, &SumParts::bias);
    want(needs & DCOL_BIAS, true, &SumParts::bias);
    want(needs & (DSCALE | DROW_SCALE), false, &SumParts::dot);
    want(needs & DCOL_SCALE, true, &SumParts::dot);
    for (bool column : {false, true}) {
      int shifts = 0;
      for (const Channel<T>& c : call.problem.channels)
        if (c.column == column) shifts = std::max(shifts, c.slot + 1);
      for (int k = 0; k < shifts; ++k) shift_of_[column].push_back(keep(column));
    }
    STD_TORCH_CHECK(totals.size() <= kMaxTotals, "program: more shifts than channels");
    read(outputs, grads, live);
    f.plan = call.plan;
  }

  Call<T> call;
  BackwardPlan<T> f{};
  struct Total {
    bool column;
    Parts at;
  };
  std::vector<Total> totals;

 private:
  // Reserves accumulators for a sum along one axis of the problem. In a symmetric problem, its
  // other half lies along the other axis of the tiles.
  Parts keep(bool column) {
    Parts at;
    if (call.symmetric || !column) at.row = f.row_parts++;
    if (call.symmetric || column) at.col = f.col_parts++;
    totals.push_back({column, at});
    return at;
  }

  void want(bool wanted, bool column, Parts SumParts::* what) {
    if (!wanted) return;
    const Parts at = keep(column);
    Parts &direct = f.sums[0].*what, &transposed = f.sums[1].*what;
    (column ? direct.col : direct.row) = column ? at.col : at.row;
    (column ? transposed.row : transposed.col) = column ? at.row : at.col;
  }

  void read(const std::vector<Tensor>& outputs, const std::vector<Tensor>& grads, int64_t live) {
    const Operands& o = call.o;
    size_t returned = 0, output = 0, grad = 0;
    for (const Channel<T>& c : call.problem.channels)
      returned += c.kind == Kind::MAX || c.kind == Kind::EXPECT ? 2 : 1;
    expect_count(outputs, "outputs", returned);
    expect_range("live", live, 0, (int64_t(1) << returned) - 1);
    expect_count(grads, "grads", std::bitset<64>(static_cast<uint64_t>(live)).count());
    const auto statistic = [&](int64_t n, ScalarType type) {
      expect(outputs[output], "output", o.x, type, o.shape({n}));
      return outputs[output].data_ptr();
    };
    const auto gradient = [&](int64_t n) -> const T* {
      if (!(live >> output & 1)) return nullptr;
      return expected<T>(grads[grad++], "grad", o.x, o.shape({n}));
    };
    short index = 0;
    for (const Channel<T>& c : call.problem.channels) {
      const int64_t n = call.length(c.column);
      Stats<T>& s = f.stats[index];
      T* first = static_cast<T*>(statistic(n, kScalarType<T>));
      const T* grad_first = gradient(n);
      ++output;
      if (c.kind == Kind::LSE) {
        s.lse = first, s.grad_lse = grad_first;
      } else {
        s.mean = first, s.grad = grad_first;
      }
      if (c.kind == Kind::MAX) {
        s.at = static_cast<int64_t*>(statistic(n, ScalarType::Long));
        STD_TORCH_CHECK(!(live >> output & 1), "live: got an index, expected values");
        ++output;
      }
      if (c.kind == Kind::EXPECT) {
        s.lse = static_cast<T*>(statistic(n, kScalarType<T>)), s.grad_lse = gradient(n);
        ++output;
      }
      if (s.grad || s.grad_lse) look(c, index);
      ++index;
    }
  }

  void look(const Channel<T>& c, short index) {
    const auto along = [&](bool transposed, bool column) {
      View<T>& v = call.view(c, transposed, [&](const View<T>& u) {
        return (column ? u.col_stats : u.row_stats) < 0;
      });
      (column ? v.col_stats : v.row_stats) = index;
      if (c.slot < 0) return;
      const Parts& at = shift_of_[c.column][static_cast<size_t>(c.slot)];
      (column ? v.col_part : v.row_part) = static_cast<short>(column ? at.col : at.row);
    };
    along(false, c.column);
    if (call.symmetric) along(!(mirror_ && !c.shift), !c.column);
  }

  bool mirror_;
  std::vector<Parts> shift_of_[2];
};

// What the operators of a backward pass hand on: row sums, column sums and, with cosines, what is
// measured.
using State = std::vector<Tensor>;

// The arguments that all operators of a backward pass share.
struct Arguments {
  const std::vector<Tensor>&outputs, &grads;
  int64_t live, needs;
  bool tf32;
  int64_t rows, cols;  // of the largest block of H
};

// Checks h: rows do not overlap and begin at multiples of 16 bytes.
inline void expect_h(const Operands& o, const Tensor& h) {
  const bool on_device = h.device() == o.x.device();
  STD_TORCH_CHECK(on_device && h.scalar_type() == o.x.scalar_type() && h.dim() == 3,
                  "h: expected 3 dimensions, the dtype and the device of x");
  STD_TORCH_CHECK(h.size(0) == o.batch() && h.size(1) >= 1 && h.size(2) >= 1, "h: got shape ",
                  shape_text(h.sizes()), ", expected (", o.batch(), ", 1 or more, 1 or more)");
  const int64_t size = bytes(element(h.scalar_type())), row = h.stride(1), item = h.stride(0);
  const auto aligned = [&](int64_t stride) { return stride * size % 16 == 0; };
  STD_TORCH_CHECK(h.stride(2) == 1 && row >= h.size(2) && aligned(row) && aligned(item) &&
                      (h.size(0) == 1 || item >= row * h.size(1)) &&
                      reinterpret_cast<uintptr_t>(h.data_ptr()) % 16 == 0,
                  "h: got strides ", shape_text(h.strides()),
                  ", expected rows at multiples of 16 bytes that do not overlap");
}

// A backward pass on the caller's stream.
template <class T>
class Pass {
 public:
  Pass(const Operands& o, const Arguments& a)
      : o_(o),
        b_(o, a.outputs, a.grads, a.live, a.needs),
        device_(o.x),
        k_(kernels(o.x.scalar_type(), T())),
        special_(k_.special ? b_.call.special() : Special::NONE) {
    b_.f.plan = b_.call.plan;  // special() may have reordered the views
    b_.f.plan.tf32 = a.tf32;
    expect_range("block_rows", a.rows, 1, std::max<int64_t>(o.m(), 1));
    expect_range("block_cols", a.cols, 1, std::max<int64_t>(o.n(), 1));
    grid_ = grid(k_, b_.f.plan, special_, true, b_.f.row_parts, a.rows, a.cols, o.batch());
  }

  // Makes the state, with all sums 0.
  State begin() {
    State state;
    for (const auto& shape : {row_slices(), col_slices()})
      state.push_back(o_.cosine ? empty(o_.x, shape, kScalarType<T>)
                                : torch::stable::new_zeros(o_.x, shape, kScalarType<T>));
    if (o_.cosine)
      for (Tensor& one : measure(b_.call, k_, nullptr, device_.stream(), state))
        state.push_back(one);
    return state;
  }

  // Computes H of rows [i, i + h.size(1)) and columns [j, j + h.size(2)).
  void h_block(const State& state, const OptionalTensor& gain, const Tensor& h, int64_t i,
               int64_t j) {
    BackwardPlan<T>& f = b_.f;
    expect_h(o_, h);
    expect_range("i", i, 0, o_.m() - h.size(1));
    expect_range("j", j, 0, o_.n() - h.size(2));
    take(state, f.rows, f.cols);
    f.i0 = static_cast<int>(i), f.i1 = static_cast<int>(i + h.size(1));
    f.j0 = static_cast<int>(j), f.j1 = static_cast<int>(j + h.size(2));
    f.h = h.data_ptr(), f.h_row = h.stride(1), f.h_item = h.stride(0);
    f.gain = expected<T>(gain, "gain", o_.x, {});
    k_.h_block(f, special_, grid_, device_.stream());
  }

  std::vector<Tensor> totals(const State& state) {
    Totals<T> f{};
    f.batch = grid_.batch, f.down = grid_.down, f.across = grid_.across;
    f.m = b_.f.plan.m, f.n = b_.f.plan.n;
    T *rows, *cols;
    take(state, rows, cols);
    f.rows = rows, f.cols = cols;
    std::vector<Tensor> found;
    for (const auto& total : b_.totals) {
      found.push_back(empty(o_.x, o_.shape({b_.call.length(total.column)}), kScalarType<T>));
      auto& one = f.total[f.count++];
      one.column = total.column, one.at = total.at, one.to = pointer<T>(found.back());
    }
    if (f.count && f.batch) k_.totals(f, device_.stream());
    return found;
  }

 private:
  // The shapes of the slices of row sums and of column sums.
  std::vector<int64_t> row_slices() const {
    return {b_.f.row_parts, grid_.batch, grid_.down, o_.m()};
  }
  std::vector<int64_t> col_slices() const {
    return {b_.f.col_parts, grid_.batch, grid_.across, o_.n()};
  }

  void take(const State& state, T*& rows, T*& cols) {
    expect_count(state, "state", o_.cosine ? 5 : 2);
    rows = expected<T>(state[0], "row sums", o_.x, row_slices());
    cols = expected<T>(state[1], "column sums", o_.x, col_slices());
    if (o_.cosine) apply(b_.call, {state.begin() + 2, state.end()}, b_.f.plan);
  }

  const Operands& o_;
  BackwardCall<T> b_;
  const Device device_;
  const Kernels<T>& k_;
  const Special special_;
  Grid grid_{};
};

// The (..., D) sums over H times the other side: those of `more`, unless it is empty, are added.
struct Sums {
  Tensor first;
  OptionalTensor more;
};

// Computes the first `width` features of the gradient of x from its sums; in x's dtype if `narrow`.
template <class T>
Tensor finish(const Sums& sums, const Tensor& x, const OptionalTensor& inverse,
              const OptionalTensor& gain, bool narrow, int64_t width) {
  const Device device(x);
  const Kernels<T>& k = kernels(x.scalar_type(), T());
  STD_TORCH_CHECK(x.dim() == 3, "x: got ", x.dim(), " dimensions, expected 3");
  const int64_t batch = x.size(0), m = x.size(1), d = x.size(2);
  expect_range("x: features", d, 1, (int64_t(1) << 31) - 512);
  expect_range("width", width, 1, d);
  expect(x, "x", x, x.scalar_type(), {batch, m, d});
  Finish<T> f{};
  f.sums = expected<T>(sums.first, "sums", x, {batch, m, d});
  f.more = expected<T>(sums.more, "more sums", x, {batch, m, d});
  f.x = x.data_ptr(), f.rows = batch * m;
  f.d = static_cast<int>(d), f.width = static_cast<int>(width);
  f.inverse = expected<T>(inverse, "inverse", x, {batch, m});
  f.gain = expected<T>(gain, "gain", x, {});
  Tensor to = empty(x, {batch, m, width}, narrow ? x.scalar_type() : kScalarType<T>);
  f.to = to.data_ptr(), f.narrow = narrow;
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  f.wide = d % 4 == 0 && width == d && aligned(f.sums) && aligned(f.more) && aligned(f.x) &&
           aligned(f.to);
  if (f.rows) k.finish(f, device.stream());
  return to;
}

// The whole pass of a problem whose pairs are one block of H: the gradients of x and of y that are
// needed, their first `width` features, then the totals, then with cosines the inverse norms and
// factors of rows and of columns.
template <class T>
std::vector<Tensor> backward(const Operands& o, const Arguments& a, const OptionalTensor& gain,
                             bool narrow, int64_t width) {
  Pass<T> pass(o, a);
  const State state = pass.begin();
  const int64_t batch = o.batch(), m = o.m(), n = o.n();
  const int64_t pitch = (n + 7) / 8 * 8;  // rows begin at multiples of 16 bytes
  const Tensor buffer = empty(o.x, {batch, m, pitch}, o.x.scalar_type());
  Tensor h = buffer;
  if (pitch != n) h = torch::stable::narrow(h, 2, 0, n);
  if (batch && m && n) pass.h_block(state, gain, h, 0, 0);

  const auto items = [&](const Tensor& t) {
    return o.batched() ? t : torch::stable::unsqueeze(t, 0);
  };
  const Tensor x = items(o.x), y = o.y ? items(*o.y) : x,
               turned = torch::stable::transpose(h, 1, 2);
  std::vector<Tensor> found;
  const auto side = [&](const Tensor& own, int s, const Sums& sums) {
    OptionalTensor inverse;
    if (o.cosine)
      inverse =
          torch::stable::view(torch::stable::select(state[3 + s], 0, 0), {batch, own.size(1)});
    found.push_back(finish<T>(sums, own, inverse, gain, narrow, width));
  };
  if (o.y) {
    if (a.needs & DX) side(x, 0, {product<T>(h, y), {}});
    if (a.needs & DY) side(y, 1, {product<T>(turned, x), {}});
  } else if (a.needs & DX) {
    side(x, 0, {product<T>(h, x), product<T>(turned, x)});
  }
  for (Tensor& total : pass.totals(state)) found.push_back(total);
  if (o.cosine) found.insert(found.end(), state.begin() + 3, state.end());
  return found;
}

// ---- operators ----------------------------------------------------------------------------------

#define CL_PASS \
  std::vector<Tensor> outputs, std::vector<Tensor> grads, int64_t live, int64_t needs, bool tf32
#define CL_BLOCKS int64_t block_rows, int64_t block_cols
#define CL_ARGUMENTS(rows, cols) {outputs, grads, live, needs, tf32, rows, cols}

std::vector<Tensor> cuda_backward(CL_CALL, CL_PASS, OptionalTensor gain, bool narrow,
                                  int64_t width) {
  const Operands o CL_OPERANDS;
  o.check();
  const Arguments a CL_ARGUMENTS(std::max<int64_t>(o.m(), 1), std::max<int64_t>(o.n(), 1));
  return by_type(x, [&](auto t) { return backward<decltype(t)>(o, a, gain, narrow, width); });
}

std::vector<Tensor> cuda_begin(CL_CALL, CL_PASS, CL_BLOCKS) {
  const Operands o CL_OPERANDS;
  const Arguments a CL_ARGUMENTS(block_rows, block_cols);
  return by_type(x, [&](auto t) { return Pass<decltype(t)>(o, a).begin(); });
}

void cuda_h_block(CL_CALL, CL_PASS, CL_BLOCKS, std::vector<Tensor> state, OptionalTensor gain,
                  Tensor h, int64_t i, int64_t j) {
  const Operands o CL_OPERANDS;
  const Arguments a CL_ARGUMENTS(block_rows, block_cols);
  by_type(x, [&](auto t) { Pass<decltype(t)>(o, a).h_block(state, gain, h, i, j); });
}

std::vector<Tensor> cuda_totals(CL_CALL, CL_PASS, CL_BLOCKS, std::vector<Tensor> state) {
  const Operands o CL_OPERANDS;
  const Arguments a CL_ARGUMENTS(block_rows, block_cols);
  return by_type(x, [&](auto t) { return Pass<decltype(t)>(o, a).totals(state); });
}

Tensor cuda_finish(Tensor sums, Tensor x, OptionalTensor inverse, OptionalTensor gain, bool narrow,
                   int64_t width) {
  return by_type(
      x, [&](auto t) { return finish<decltype(t)>({sums, {}}, x, inverse, gain, narrow, width); });
}

}  // namespace
}  // namespace contrastloss::cuda

STABLE_TORCH_LIBRARY_IMPL(contrastloss, CL_DISPATCH_KEY, m) {
  m.impl("cuda_backward", TORCH_BOX(&contrastloss::cuda::cuda_backward));
  m.impl("cuda_begin", TORCH_BOX(&contrastloss::cuda::cuda_begin));
  m.impl("cuda_h_block", TORCH_BOX(&contrastloss::cuda::cuda_h_block));
  m.impl("cuda_totals", TORCH_BOX(&contrastloss::cuda::cuda_totals));
  m.impl("cuda_finish", TORCH_BOX(&contrastloss::cuda::cuda_finish));
}
