// A call as tensors, read into the engines' plain data. Operands arrive as
// contrastloss/backends/cpu.py prepares them: contiguous, one batch dimension or none, the
// statistics' dtype, int64 ids, and the program as integers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>

#include "../tensor.h"
#include "plan.h"

namespace contrastloss::cpu {

// The instruction set of that number, -1: the best one present.
const Engine& engine(int64_t level);

int threads();
void run_parallel(int64_t n, void (*f)(void*, int64_t), void* context);

inline Tensor empty(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype) {
  return torch::stable::new_empty(like, shape, dtype);
}

inline Element element(ScalarType type) {
  switch (type) {
    case ScalarType::Double: return Element::F64;
    case ScalarType::Float: return Element::F32;
    case ScalarType::BFloat16: return Element::BF16;
    case ScalarType::Half: return Element::F16;
    default: STD_TORCH_CHECK(false, "x: unsupported dtype");
  }
  return Element::F32;
}

inline int64_t bytes(Element e) { return e == Element::F64 ? 8 : e == Element::F32 ? 4 : 2; }

// The call's operands, as they come through the schema.
struct Operands {
  const Tensor& x;
  const OptionalTensor &y, &scale, &row_scale, &col_scale, &row_bias, &col_bias;
  const std::vector<Tensor>&rows, &cols;
  const Tensor &code, &values;
  bool cosine;
  ScalarType compute;

  bool batched() const { return x.dim() == 3; }
  int64_t batch() const { return batched() ? x.size(0) : 1; }
  int64_t m() const { return x.size(x.dim() - 2); }
  int64_t n() const { return y ? y->size(y->dim() - 2) : m(); }
  int64_t d() const { return x.size(x.dim() - 1); }

  // The shape of a result that has `item` for every batch item.
  std::vector<int64_t> shape(std::initializer_list<int64_t> item) const {
    std::vector<int64_t> found;
    if (batched()) found.push_back(batch());
    found.insert(found.end(), item);
    return found;
  }
};

// Reads the program: see `_encode` in contrastloss/backends/cpu.py, which writes it.
class Reader {
 public:
  explicit Reader(const Operands& o) : o_(o), size_(o.code.numel()), values_(o.values.numel()) {
    require(o.code, "code", ScalarType::Long, size_);
    require(o.values, "values", ScalarType::Double, values_);
    code_ = static_cast<const int64_t*>(o.code.data_ptr());
    value_ = static_cast<const double*>(o.values.data_ptr());
  }

  int64_t next() {
    STD_TORCH_CHECK(at_ < size_, "program: truncated");
    return code_[at_++];
  }
  double value() {
    const int64_t k = next();
    STD_TORCH_CHECK(k >= 0 && k < values_, "program: no such value");
    return value_[k];
  }

  // The vector that a code names for this batch item: -1 is none, or the position itself.
  const int64_t* ids(bool row, int64_t item) {
    const int64_t k = next();
    if (k < 0) return nullptr;
    const Tensor& t = (row ? o_.rows : o_.cols).at(static_cast<size_t>(k));
    const int64_t n = row ? o_.m() : o_.n();
    require(t, "ids", ScalarType::Long, o_.batch() * n);
    return static_cast<const int64_t*>(t.data_ptr()) + item * n;
  }
  // E of the form whose row operand is read next
  int64_t extent() const {
    STD_TORCH_CHECK(at_ < size_, "program: truncated");
    const Tensor& t = o_.rows.at(static_cast<size_t>(code_[at_]));
    return t.size(t.dim() - 1);
  }
  template <class T>
  const T* floats(bool row, int64_t item, int64_t extent = 1) {
    const int64_t k = next();
    if (k < 0) return nullptr;
    const Tensor& t = (row ? o_.rows : o_.cols).at(static_cast<size_t>(k));
    const int64_t n = (row ? o_.m() : o_.n()) * extent;
    require(t, "operand", kScalarType<T>, o_.batch() * n);
    return static_cast<const T*>(t.data_ptr()) + item * n;
  }

 private:
  const Operands& o_;
  const int64_t* code_;
  const double* value_;
  const int64_t size_, values_;
  int64_t at_ = 0;
};

template <class T>
Group<T> read_group(Reader& in, int64_t item, bool symmetric) {
  Group<T> group;
  for (int64_t k = in.next(); k > 0; --k) {
    Test test;
    test.op = static_cast<Compare>(in.next());
    test.row = in.ids(true, item);
    test.col = in.ids(false, item);
    test.width = in.next();
    group.tests.push_back(test);
  }
  if (symmetric) group.tests.push_back({Compare::NE, nullptr, nullptr, 0});
  for (int64_t k = in.next(); k > 0; --k) {
    Term<T> term;
    term.kind = static_cast<TermKind>(in.next());
    term.value = static_cast<T>(in.value());
    term.extent = in.next();
    if (term.kind == TermKind::DIFFERING) {
      for (int64_t t = term.extent; t > 0; --t) {
        term.row_ids.push_back(in.ids(true, item));
        term.col_ids.push_back(in.ids(false, item));
      }
    } else {
      if (term.kind >= TermKind::FORM) term.extent = in.extent();
      term.row = in.floats<T>(true, item, term.extent);
      term.col = in.floats<T>(false, item, term.extent);
    }
    group.terms.push_back(term);
  }
  return group;
}

template <class T>
Problem<T> read_problem(const Operands& o, int64_t item) {
  Problem<T> p;
  const Element in = element(o.x.scalar_type()), rounded = element(o.compute);
  const int64_t m = o.m(), n = o.n(), d = o.d(), batch = o.batch();
  p.x = {static_cast<const char*>(o.x.data_ptr()) + item * m * d * bytes(in), in, rounded, m, d};
  p.symmetric = !o.y.has_value();
  p.y = p.x;
  if (o.y)
    p.y = {static_cast<const char*>(o.y->data_ptr()) + item * n * d * bytes(in), in, rounded, n, d};
  if (o.scale) p.scale = *data<T>(o.scale, "scale", 1);
  auto vector = [&](const OptionalTensor& t, const char* name, int64_t length) -> const T* {
    const T* all = data<T>(t, name, batch * length);
    return all ? all + item * length : nullptr;
  };
  p.a = vector(o.row_scale, "row_scale", m);
  p.b = vector(o.col_scale, "col_scale", n);
  p.beta = vector(o.row_bias, "row_bias", m);
  p.gamma = vector(o.col_bias, "col_bias", n);

  Reader read(o);
  for (int64_t k = read.next(); k > 0; --k)
    p.groups.push_back(read_group<T>(read, item, p.symmetric));
  for (int64_t k = read.next(); k > 0; --k) {
    Channel<T> c;
    c.kind = static_cast<Kind>(read.next());
    c.psi = static_cast<int>(read.next());
    c.column = read.next() != 0;
    c.group = static_cast<int>(read.next());
    c.theta = static_cast<T>(read.value());
    c.sign = static_cast<T>(read.value());
    c.relax = static_cast<T>(read.value());
    c.shift = read.floats<T>(!c.column, item);
    c.slot = static_cast<int>(read.next());
    p.channels.push_back(c);
  }
  return p;
}

// Inverse norms of both sides. Where rows are packed as unit vectors the engine applies them, else
// they become part of the problem's scales. With `cosine` unset, nothing.
template <class T>
class Norms {
 public:
  Norms(const Operands& o, const Engine& e, Problem<T>& p)
      : multiplied_(e.bf16 && p.x.rounded == Element::BF16) {
    if (!o.cosine) return;
    measure(e, p.x, x_);
    if (!p.symmetric) measure(e, p.y, y_);
    const std::vector<T>& y = p.symmetric ? x_ : y_;
    p.bound = bound(p);  // |cos| <= 1, but for rounding
    if (multiplied_) {
      p.a = scaled(x_, p.a, a_);
      p.b = scaled(y, p.b, b_);
    } else {
      p.x_norm = x_.data();
      p.y_norm = y.data();
    }
  }

  // What a and b hold beside the call's own scales.
  double x(int64_t i) const { return part(x_, i); }
  double y(int64_t j) const { return part(y_.empty() ? x_ : y_, j); }

  // From the gradients of the unit vectors to those of x and y.
  void finish(const Engine& e, const Problem<T>& p) const {
    if (x_.empty()) return;
    const auto& r = e.of(T()).remove_radial;
    if (p.sums.dx) r(p.x, x_.data(), multiplied_, p.sums.dx, threads(), run_parallel);
    if (p.sums.dy) r(p.y, y_.data(), multiplied_, p.sums.dy, threads(), run_parallel);
  }

 private:
  static T bound(const Problem<T>& p) {
    auto largest = [](const T* v, int64_t n, T without) {
      T most = v ? T(0) : without;
      for (int64_t k = 0; v && k < n; ++k) most = std::max(most, std::fabs(v[k]));
      return most;
    };
    const int64_t m = p.x.rows, n = p.y.rows;
    const T product = std::fabs(p.scale) * largest(p.a, m, 1) * largest(p.b, n, 1);
    return product * T(1.0001) + largest(p.beta, m, 0) + largest(p.gamma, n, 0);
  }

  static void measure(const Engine& e, const Matrix& side, std::vector<T>& r) {
    r.resize(static_cast<size_t>(side.rows));
    if (side.rows) e.of(T()).inverse_norms(side, r.data(), threads(), run_parallel);
  }

  static const T* scaled(const std::vector<T>& r, const T* by, std::vector<T>& product) {
    if (!by) return r.data();
    product = r;
    for (size_t i = 0; i < r.size(); ++i) product[i] *= by[i];
    return product.data();
  }

  double part(const std::vector<T>& r, int64_t i) const {
    return r.empty() || !multiplied_ ? 1.0 : double(r[static_cast<size_t>(i)]);
  }

  const bool multiplied_;
  std::vector<T> x_, y_, a_, b_;
};

// ---- gradients
// ------------------------------------------------------------------------------------

enum Need : int64_t {
  DX = 1,
  DY = 2,
  DSCALE = 4,
  DROW_SCALE = 8,
  DCOL_SCALE = 16,
  DROW_BIAS = 32,
  DCOL_BIAS = 64
};

// The gradients that `needs` marks, as tensors, and the accumulators behind those of one batch
// item.
template <class T>
class Gradients {
 public:
  Gradients(const Operands& o, int64_t needs) : o_(o), needs_(needs) {
    const int64_t m = o.m(), n = o.n();
    if (wants(DX)) found_[0] = zeros(o.shape({m, o.d()}));
    if (wants(DY) && o.y) found_[1] = zeros(o.shape({n, o.d()}));
    if (wants(DSCALE)) found_[2] = zeros({});
    if (wants(DROW_SCALE)) found_[3] = zeros(o.shape({m}));
    if (wants(DCOL_SCALE)) found_[4] = zeros(o.shape({n}));
    if (wants(DROW_BIAS)) found_[5] = zeros(o.shape({m}));
    if (wants(DCOL_BIAS)) found_[6] = zeros(o.shape({n}));
  }

  bool wants(int64_t what) const { return (needs_ & what) != 0; }

  Tensor zeros(std::vector<int64_t> shape) const {
    Tensor t = empty(o_.x, shape, kScalarType<T>);
    std::memset(t.data_ptr(), 0, static_cast<size_t>(t.numel()) * sizeof(T));
    return t;
  }

  // Gives a problem, whose norms are in place, its accumulators.
  void begin(Problem<T>& p, int64_t item) {
    const int64_t m = o_.m(), n = o_.n(), d = o_.d();
    p.sums.dx = at(0, item, m * d), p.sums.dy = at(1, item, n * d);
    p.sums.row_bias = zeroed(row_bias_, DROW_BIAS, m);
    p.sums.col_bias = zeroed(col_bias_, DCOL_BIAS, n);
    p.sums.row_dot = zeroed(row_dot_, DSCALE | DROW_SCALE, m);
    p.sums.col_dot = zeroed(col_dot_, DCOL_SCALE, n);
  }

  void finish(const Engine& e, const Problem<T>& p, const Norms<T>& norms, int64_t item) {
    const int64_t m = o_.m(), n = o_.n();
    if (wants(DSCALE)) {
      double total = 0;
      for (int64_t i = 0; i < m; ++i) total += row_dot_[i] * (p.a ? double(p.a[i]) : 1.0);
      *at(2, 0, 0) += static_cast<T>(total);
    }
    if (T* da = at(3, item, m))
      for (int64_t i = 0; i < m; ++i)
        da[i] = static_cast<T>(double(p.scale) * norms.x(i) * row_dot_[i]);
    if (T* db = at(4, item, n))
      for (int64_t j = 0; j < n; ++j)
        db[j] = static_cast<T>(double(p.scale) * norms.y(j) * col_dot_[j]);
    norms.finish(e, p);
    store(row_bias_, at(5, item, m));
    store(col_bias_, at(6, item, n));
  }

  std::vector<Tensor> tensors() const {
    std::vector<Tensor> all;
    for (const auto& t : found_)
      if (t) all.push_back(*t);
    return all;
  }

  static void store(const std::vector<double>& from, T* to) {
    if (to)
      std::transform(from.begin(), from.end(), to, [](double v) { return static_cast<T>(v); });
  }

 private:
  T* at(int k, int64_t item, int64_t stride) {
    return found_[k] ? static_cast<T*>(found_[k]->data_ptr()) + item * stride : nullptr;
  }

  double* zeroed(std::vector<double>& v, int64_t what, int64_t size) {
    if (!wants(what)) return nullptr;
    v.assign(static_cast<size_t>(size), 0.0);
    return v.data();
  }

  const Operands& o_;
  const int64_t needs_;
  std::optional<Tensor> found_[7];
  std::vector<double> row_bias_, col_bias_, row_dot_, col_dot_;
};

}  // namespace contrastloss::cpu
