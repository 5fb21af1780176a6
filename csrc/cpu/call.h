// What the operators on CPU tensors share: threads, and norms and gradients around an engine.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "../operands.h"
#include "engine.h"

namespace contrastloss::cpu {

// The engine of this CPU's instruction set number `level`, best first; -1 means the best one, too.
const Engine& engine(int64_t level);

// Memory that a call holds while its jobs run, aligned to cache lines. A thread has one at a time.
struct Held {
  explicit Held(int64_t bytes);
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held();
  void* const memory;
};

int threads();
void run_parallel(int64_t n, void (*f)(void*, int64_t), void* context);
// For products with gradients of scores: results below the least normal number become 0.
void run_gradients(int64_t n, void (*f)(void*, int64_t), void* context);

template <class T>
Problem<T> problem(const Operands& o, int64_t item) {
  Problem<T> p = read_problem<T>(o, item);
  if (o.scale) p.scale = *data<T>(o.scale, "scale", 1);
  return p;
}

// The data of batch item `item`, after checking that `t` has `batch` times `per_item` elements.
template <class U>
const U* batch_item(const Tensor& t, const char* name, ScalarType type, int64_t batch,
                    int64_t per_item, int64_t item) {
  require(t, name, type, batch * per_item);
  return static_cast<const U*>(t.data_ptr()) + item * per_item;
}

// The inverse norms of x and y. If rows are packed as unit vectors, the engine applies them;
// otherwise they are multiplied into the problem's row and column scales. Does nothing without
// `cosine`.
template <class T>
class Norms {
 public:
  Norms(const Operands& o, const Engine& e, Problem<T>& p) {
    if (!o.cosine) return;
    measure(e, p.x, x_);
    if (!p.symmetric) measure(e, p.y, y_);
    const std::vector<T>& y = p.symmetric ? x_ : y_;
    multiplied_ = e.bf16 && p.x.rounded == Element::BF16 && short_rows(x_) && short_rows(y);
    p.bound = bound(p);  // |cos| <= 1, up to rounding
    if (multiplied_) {
      p.a = scaled(x_, p.a, a_);
      p.b = scaled(y, p.b, b_);
    } else {
      p.x_norm = x_.data();
      p.y_norm = y.data();
    }
  }

  // The factors in a and b in addition to the call's own scales.
  double x(int64_t i) const { return part(x_, i); }
  double y(int64_t j) const { return part(y_.empty() ? x_ : y_, j); }

  // Turns the gradients of the unit vectors into those of x and y.
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

  // Whether the product of two unscaled rows always fits in fp32.
  static bool short_rows(const std::vector<T>& r) {
    return std::none_of(r.begin(), r.end(), [](T v) { return v > T(0) && v < T(1e-15); });
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

  bool multiplied_ = false;
  std::vector<T> x_, y_, a_, b_;
};

// Whether (i, j) and (j, i) have the same score, tests and weight in a symmetric problem. The
// values are compared, in O(N), so callers need not promise anything.
template <class T>
bool mirrors(const Problem<T>& p) {
  if (!p.symmetric) return false;
  const int64_t n = p.x.rows;
  auto equal = [n](const auto* u, const auto* v, int64_t extent) {
    return u == v || (u && v && std::equal(u, u + n * extent, v));
  };
  auto bias = [&](int64_t i) {
    return (p.beta ? p.beta[i] : T(0)) - (p.gamma ? p.gamma[i] : T(0));
  };
  if (!equal(p.a, p.b, 1)) return false;
  for (int64_t i = 1; (p.beta || p.gamma) && i < n; ++i)
    if (bias(i) != bias(0)) return false;
  for (const Group<T>& g : p.groups) {
    for (const Test& t : g.tests)
      if (t.op == Compare::LT || !equal(t.row, t.col, 1)) return false;
    for (const Term<T>& t : g.terms) {
      if (t.kind == TermKind::DIFFERING) {
        for (size_t k = 0; k < t.row_ids.size(); ++k)
          if (!equal(t.row_ids[k], t.col_ids[k], 1)) return false;
      } else if (t.of_one_axis() || !equal(t.row, t.col, t.extent)) {
        return false;
      }
    }
  }
  return true;
}

// ---- gradients ----------------------------------------------------------------------------------

// The gradients marked in `needs`, as tensors, and the accumulators of one batch item.
template <class T>
class Gradients {
 public:
  // `overwritten`: whether those of x and y need no zeros to begin with.
  Gradients(const Operands& o, int64_t needs, bool overwritten = false) : o_(o), needs_(needs) {
    const int64_t m = o.m(), n = o.n();
    auto rows = [&](int64_t count) {
      const std::vector<int64_t> shape = o.shape({count, o.d()});
      return overwritten ? empty(o.x, shape, kScalarType<T>) : zeros(shape);
    };
    if (wants(DX)) found_[0] = rows(m);
    if (wants(DY) && o.y) found_[1] = rows(n);
    if (wants(DSCALE)) found_[2] = zeros({});
    if (wants(DROW_SCALE)) found_[3] = zeros(o.shape({m}));
    if (wants(DCOL_SCALE)) found_[4] = zeros(o.shape({n}));
    if (wants(DROW_BIAS)) found_[5] = zeros(o.shape({m}));
    if (wants(DCOL_BIAS)) found_[6] = zeros(o.shape({n}));
  }

  bool wants(int64_t what) const { return (needs_ & what) != 0; }

  // A mirrored tile mixes both orientations, which is wrong for sums that belong to one of them.
  bool mirrors(const Problem<T>& p) const {
    return cpu::mirrors(p) && !wants(DROW_BIAS | DCOL_BIAS | DROW_SCALE | DCOL_SCALE);
  }

  Tensor zeros(const std::vector<int64_t>& shape) const {
    Tensor t = empty(o_.x, shape, kScalarType<T>);
    struct Context {
      T* data;
      int64_t size, parts;
    } c{static_cast<T*>(t.data_ptr()), t.numel(), 1};
    c.parts = std::clamp<int64_t>(c.size / 65536, 1, threads());  // new memory is slow to write
    auto chunk = [](void* context, int64_t k) {
      const Context& own = *static_cast<Context*>(context);
      const int64_t first = own.size * k / own.parts, last = own.size * (k + 1) / own.parts;
      std::fill(own.data + first, own.data + last, T(0));
    };
    run_parallel(c.parts, chunk, &c);
    return t;
  }

  // Gives the problem its accumulators, after Norms has been applied to it.
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

// The gradients of shifts: one tensor for each shift operand, those of rows first, and the
// accumulators of one batch item.
template <class T>
class Shifts {
 public:
  Shifts(const Operands& o, const Problem<T>& p, const Gradients<T>& found) {
    for (const bool column : {false, true})
      for (const Channel<T>& c : p.channels)
        while (c.column == column && count(column) <= c.slot) {
          lengths_.push_back(column ? o.n() : o.m());
          tensors_.push_back(found.zeros(o.shape({lengths_.back()})));
          if (!column) ++rows_;
        }
  }

  // Gives the channels their accumulators.
  void begin(Problem<T>& p) {
    sums_.clear();
    for (const int64_t length : lengths_) sums_.emplace_back(static_cast<size_t>(length), 0.0);
    for (Channel<T>& c : p.channels)
      if (c.slot >= 0)
        c.dshift = sums_[static_cast<size_t>(c.slot + (c.column ? rows_ : 0))].data();
  }

  void finish(int64_t item) {
    for (size_t k = 0; k < tensors_.size(); ++k)
      Gradients<T>::store(sums_[k], static_cast<T*>(tensors_[k].data_ptr()) + item * lengths_[k]);
  }

  const std::vector<Tensor>& tensors() const { return tensors_; }

 private:
  int count(bool column) const {
    return column ? static_cast<int>(tensors_.size()) - rows_ : rows_;
  }

  int rows_ = 0;
  std::vector<int64_t> lengths_;
  std::vector<Tensor> tensors_;
  std::vector<std::vector<double>> sums_;
};

}  // namespace contrastloss::cpu
