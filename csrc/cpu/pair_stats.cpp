// The operators contrastloss::cpu_forward and cpu_backward: from tensors to the engines' plain data
// and back. Operands arrive as contrastloss/backends/cpu.py prepares them: contiguous, one batch
// dimension, the statistics' dtype, int64 ids, and the program as integers.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <cstdlib>
#include <limits>
#include <new>

#include <pthread.h>

#include "../tensor.h"
#include "plan.h"

namespace contrastloss::cpu {
namespace {

const Engine* const kEngines[] = {&amx_engine, &avx512_engine, &avx2_engine, &generic_engine};

const Engine& engine(int64_t level) {
  if (level >= 0) {
    STD_TORCH_CHECK(level < 4 && kEngines[level]->supported(), "isa: not supported here");
    return *kEngines[level];
  }
  for (const Engine* e : kEngines)
    if (e->supported()) return *e;
  return generic_engine;
}

// Kept from call to call up to this size; mapping fresh pages costs more than small problems do.
constexpr int64_t kKept = int64_t(16) << 20;

class Scratch {
 public:
  ~Scratch() { std::free(memory_); }
  void* at_least(int64_t bytes) {
    if (bytes > size_ || size_ > kKept) {
      std::free(memory_);
      size_ = (bytes + 4095) / 4096 * 4096;
      memory_ = std::aligned_alloc(64, static_cast<size_t>(size_));
      if (memory_ == nullptr) size_ = 0, throw std::bad_alloc();
    }
    return memory_;
  }

 private:
  void* memory_ = nullptr;
  int64_t size_ = 0;
};

void run_parallel(int64_t n, void (*f)(void*, int64_t), void* context) {
  if (n == 1) return f(context, 0);
  torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) f(context, k);
  });
}

Element element(ScalarType type) {
  switch (type) {
    case ScalarType::Double: return Element::F64;
    case ScalarType::Float: return Element::F32;
    case ScalarType::BFloat16: return Element::BF16;
    case ScalarType::Half: return Element::F16;
    default: STD_TORCH_CHECK(false, "x: unsupported dtype");
  }
  return Element::F32;
}

int64_t bytes(Element e) { return e == Element::F64 ? 8 : e == Element::F32 ? 4 : 2; }

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
      if (term.kind == TermKind::FORM || term.kind == TermKind::LOG_FORM) term.extent = in.extent();
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
    c.shift = read.floats<T>(!c.column, item);
    c.slot = static_cast<int>(read.next());
    p.channels.push_back(c);
  }
  return p;
}

// Whether (i, j) and (j, i) have the same score, tests and weight in a symmetric problem. Looked up
// in the data, O(N): callers need not promise anything.
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
      } else if (t.kind == TermKind::ROW || t.kind == TermKind::COL ||
                 !equal(t.row, t.col, t.extent)) {
        return false;
      }
    }
  }
  return true;
}

Tensor empty(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype) {
  return torch::stable::new_empty(like, shape, dtype);
}

// OpenMP's workers do not survive a fork, and a child that waits for them waits for ever.
bool forked = false;
const int fork_noted = pthread_atfork(nullptr, nullptr, [] { forked = true; });

int threads() { return forked ? 1 : static_cast<int>(torch::stable::get_num_threads()); }

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

// ---- forward ------------------------------------------------------------------------------------

// Accumulators of one batch item.
template <class T>
struct State {
  std::vector<std::vector<double>> doubles;
  std::vector<std::vector<T>> tops;
  std::vector<std::vector<int64_t>> indices;

  explicit State(Problem<T>& p) {
    const T none = -std::numeric_limits<T>::infinity();
    const size_t channels = p.channels.size();
    doubles.reserve(2 * channels), tops.reserve(channels), indices.reserve(channels);
    for (Channel<T>& c : p.channels) {
      const size_t n = static_cast<size_t>(c.column ? p.y.rows : p.x.rows);
      if (c.kind != Kind::SUM) c.top = tops.emplace_back(n, none).data();
      if (c.kind != Kind::MAX) c.sum = doubles.emplace_back(n, 0.0).data();
      if (c.kind == Kind::EXPECT) c.moment = doubles.emplace_back(n, 0.0).data();
      if (c.kind == Kind::MAX) c.index = indices.emplace_back(n, -1).data();
    }
  }
};

template <class T>
T log_sum(const Channel<T>& c, int64_t k) {
  if (c.sum[k] == 0) return -std::numeric_limits<T>::infinity();
  return static_cast<T>(std::log(c.sum[k]) + static_cast<double>(c.top[k]));
}

template <class T>
std::vector<Tensor> forward(const Operands& o, const Engine& e) {
  std::vector<Tensor> outputs;
  for (int64_t item = 0; item < std::max<int64_t>(o.batch(), 1); ++item) {
    const bool any = o.batch() > 0;
    Problem<T> p = read_problem<T>(o, item);
    State<T> state(p);
    if (any) {
      const Norms<T> norms(o, e, p);
      p.mirror = mirrors(p);
      e.of(T()).forward(p, threads(), run_parallel);
    }
    size_t next = 0;
    auto output = [&](int64_t n, ScalarType type) -> void* {
      if (item == 0) outputs.push_back(empty(o.x, o.shape({n}), type));
      Tensor& t = outputs[next++];
      return static_cast<char*>(t.data_ptr()) +
             item * n * (type == ScalarType::Long ? 8 : sizeof(T));
    };
    for (const Channel<T>& c : p.channels) {
      const int64_t n = c.column ? o.n() : o.m();
      T* value = static_cast<T*>(output(n, kScalarType<T>));
      int64_t* index =
          c.kind == Kind::MAX ? static_cast<int64_t*>(output(n, ScalarType::Long)) : nullptr;
      T* lse = c.kind == Kind::EXPECT ? static_cast<T*>(output(n, kScalarType<T>)) : nullptr;
      for (int64_t k = 0; any && k < n; ++k) {
        switch (c.kind) {
          case Kind::LSE: value[k] = log_sum(c, k); break;
          case Kind::SUM: value[k] = static_cast<T>(c.sum[k]); break;
          case Kind::MAX: value[k] = c.top[k], index[k] = c.index[k]; break;
          case Kind::EXPECT:
            value[k] = c.sum[k] == 0 ? T(0) : static_cast<T>(c.moment[k] / c.sum[k]);
            lse[k] = log_sum(c, k);
            break;
        }
      }
    }
  }
  return outputs;
}

// ---- backward -----------------------------------------------------------------------------------

enum Need : int64_t {
  DX = 1,
  DY = 2,
  DSCALE = 4,
  DROW_SCALE = 8,
  DCOL_SCALE = 16,
  DROW_BIAS = 32,
  DCOL_BIAS = 64
};

template <class T>
class BackwardPass {
 public:
  BackwardPass(const Operands& o, const std::vector<Tensor>& outputs,
               const std::vector<Tensor>& grads, int64_t live, int64_t needs)
      : o_(o), outputs_(outputs), grads_(grads), live_(live), needs_(needs) {}

  std::vector<Tensor> run_all(const Engine& e) {
    allocate();
    for (int64_t item = 0; item < o_.batch(); ++item) run_item(e, item);
    std::vector<Tensor> found;
    for (auto& t : result_)
      if (t) found.push_back(*t);
    found.insert(found.end(), row_shifts_.begin(), row_shifts_.end());
    found.insert(found.end(), col_shifts_.begin(), col_shifts_.end());
    return found;
  }

 private:
  bool needs(int64_t what) const { return (needs_ & what) != 0; }

  Tensor zeros(std::vector<int64_t> shape) {
    Tensor t = empty(o_.x, shape, kScalarType<T>);
    std::memset(t.data_ptr(), 0, static_cast<size_t>(t.numel()) * sizeof(T));
    return t;
  }

  void allocate() {
    const int64_t m = o_.m(), n = o_.n();
    if (needs(DX)) result_[0] = zeros(o_.shape({m, o_.d()}));
    if (needs(DY) && o_.y) result_[1] = zeros(o_.shape({n, o_.d()}));
    if (needs(DSCALE)) result_[2] = zeros({});
    if (needs(DROW_SCALE)) result_[3] = zeros(o_.shape({m}));
    if (needs(DCOL_SCALE)) result_[4] = zeros(o_.shape({n}));
    if (needs(DROW_BIAS)) result_[5] = zeros(o_.shape({m}));
    if (needs(DCOL_BIAS)) result_[6] = zeros(o_.shape({n}));
    const Problem<T> p = read_problem<T>(o_, 0);
    for (const Channel<T>& c : p.channels) {
      std::vector<Tensor>& shifts = c.column ? col_shifts_ : row_shifts_;
      while (static_cast<int>(shifts.size()) <= c.slot)
        shifts.push_back(zeros(o_.shape({c.column ? n : m})));
    }
  }

  T* at(int k, int64_t item, int64_t stride) {
    return result_[k] ? static_cast<T*>(result_[k]->data_ptr()) + item * stride : nullptr;
  }

  // The statistics of the forward pass and their gradients, for one batch item.
  void attach(Problem<T>& p, int64_t item) {
    size_t output = 0, grad = 0;
    auto take = [&](int64_t n) {
      const T* values = nullptr;
      if (live_ >> output & 1) {
        require(grads_.at(grad), "grad", kScalarType<T>, o_.batch() * n);
        values = static_cast<const T*>(grads_[grad++].data_ptr()) + item * n;
      }
      return values;
    };
    for (Channel<T>& c : p.channels) {
      const int64_t n = c.column ? o_.n() : o_.m();
      auto statistic = [&](ScalarType type) {
        require(outputs_.at(output), "output", type, o_.batch() * n);
        return static_cast<const char*>(outputs_[output].data_ptr());
      };
      if (c.kind == Kind::LSE) {
        c.lse = reinterpret_cast<const T*>(statistic(kScalarType<T>)) + item * n;
        c.grad_lse = take(n), ++output;
        continue;
      }
      c.mean = reinterpret_cast<const T*>(statistic(kScalarType<T>)) + item * n;
      c.grad = take(n), ++output;
      if (c.kind == Kind::MAX)
        c.at = reinterpret_cast<const int64_t*>(statistic(ScalarType::Long)) + item * n, ++output;
      if (c.kind == Kind::EXPECT) {
        c.lse = reinterpret_cast<const T*>(statistic(kScalarType<T>)) + item * n;
        c.grad_lse = take(n), ++output;
      }
    }
  }

  void run_item(const Engine& e, int64_t item) {
    Problem<T> p = read_problem<T>(o_, item);
    const int64_t m = o_.m(), n = o_.n(), d = o_.d();
    const Norms<T> norms(o_, e, p);
    attach(p, item);
    Sums<T>& out = p.sums;
    out.dx = at(0, item, m * d), out.dy = at(1, item, n * d);
    std::vector<double> row_bias, col_bias, row_dot, col_dot;
    auto zeroed = [](std::vector<double>& v, bool wanted, int64_t size) -> double* {
      if (!wanted) return nullptr;
      v.assign(static_cast<size_t>(size), 0.0);
      return v.data();
    };
    out.row_bias = zeroed(row_bias, needs(DROW_BIAS), m);
    out.col_bias = zeroed(col_bias, needs(DCOL_BIAS), n);
    out.row_dot = zeroed(row_dot, needs(DSCALE | DROW_SCALE), m);
    out.col_dot = zeroed(col_dot, needs(DCOL_SCALE), n);
    std::vector<std::vector<double>> shifts = attach_shifts(p);
    // A mirrored tile adds up both orientations: right only for sums that want them added up.
    p.mirror = mirrors(p) && !needs(DROW_BIAS | DCOL_BIAS | DROW_SCALE | DCOL_SCALE);
    e.of(T()).backward(p, threads(), run_parallel);

    if (needs(DSCALE)) {
      double total = 0;
      for (int64_t i = 0; i < m; ++i) total += row_dot[i] * (p.a ? double(p.a[i]) : 1.0);
      *at(2, 0, 0) += static_cast<T>(total);
    }
    if (T* da = at(3, item, m))
      for (int64_t i = 0; i < m; ++i)
        da[i] = static_cast<T>(double(p.scale) * norms.x(i) * row_dot[i]);
    if (T* db = at(4, item, n))
      for (int64_t j = 0; j < n; ++j)
        db[j] = static_cast<T>(double(p.scale) * norms.y(j) * col_dot[j]);
    norms.finish(e, p);
    store(row_bias, at(5, item, m));
    store(col_bias, at(6, item, n));
    size_t k = 0;
    for (Tensor& t : row_shifts_) store(shifts[k++], static_cast<T*>(t.data_ptr()) + item * m);
    for (Tensor& t : col_shifts_) store(shifts[k++], static_cast<T*>(t.data_ptr()) + item * n);
  }

  // One accumulator per distinct shift operand, rows first.
  std::vector<std::vector<double>> attach_shifts(Problem<T>& p) {
    std::vector<std::vector<double>> found;
    for (size_t k = 0; k < row_shifts_.size(); ++k)
      found.emplace_back(static_cast<size_t>(o_.m()), 0.0);
    for (size_t k = 0; k < col_shifts_.size(); ++k)
      found.emplace_back(static_cast<size_t>(o_.n()), 0.0);
    for (Channel<T>& c : p.channels)
      if (c.slot >= 0)
        c.dshift = found[static_cast<size_t>(c.slot) + (c.column ? row_shifts_.size() : 0)].data();
    return found;
  }

  static void store(const std::vector<double>& from, T* to) {
    if (to)
      std::transform(from.begin(), from.end(), to, [](double v) { return static_cast<T>(v); });
  }

  const Operands& o_;
  const std::vector<Tensor>&outputs_, &grads_;
  const int64_t live_, needs_;
  std::optional<Tensor> result_[7];
  std::vector<Tensor> row_shifts_, col_shifts_;
};

// ---- operators
// ------------------------------------------------------------------------------------

std::vector<Tensor> cpu_forward(Tensor x, OptionalTensor y, OptionalTensor scale,
                                OptionalTensor row_scale, OptionalTensor col_scale,
                                OptionalTensor row_bias, OptionalTensor col_bias,
                                std::vector<Tensor> rows, std::vector<Tensor> cols, Tensor code,
                                Tensor values, bool cosine, ScalarType compute, int64_t isa) {
  const Operands o{x,    y,    scale, row_scale, col_scale, row_bias, col_bias,
                   rows, cols, code,  values,    cosine,    compute};
  if (x.scalar_type() == ScalarType::Double) return forward<double>(o, engine(isa));
  return forward<float>(o, engine(isa));
}

std::vector<Tensor> cpu_backward(Tensor x, OptionalTensor y, OptionalTensor scale,
                                 OptionalTensor row_scale, OptionalTensor col_scale,
                                 OptionalTensor row_bias, OptionalTensor col_bias,
                                 std::vector<Tensor> rows, std::vector<Tensor> cols, Tensor code,
                                 Tensor values, bool cosine, ScalarType compute, int64_t isa,
                                 std::vector<Tensor> outputs, std::vector<Tensor> grads,
                                 int64_t live, int64_t needs) {
  const Operands o{x,    y,    scale, row_scale, col_scale, row_bias, col_bias,
                   rows, cols, code,  values,    cosine,    compute};
  if (x.scalar_type() == ScalarType::Double)
    return BackwardPass<double>(o, outputs, grads, live, needs).run_all(engine(isa));
  return BackwardPass<float>(o, outputs, grads, live, needs).run_all(engine(isa));
}

}  // namespace

void* scratch(int64_t bytes) {
  static thread_local Scratch of_this_thread;
  return of_this_thread.at_least(bytes);
}

}  // namespace contrastloss::cpu

STABLE_TORCH_LIBRARY_IMPL(contrastloss, CPU, m) {
  m.impl("cpu_forward", TORCH_BOX(&contrastloss::cpu::cpu_forward));
  m.impl("cpu_backward", TORCH_BOX(&contrastloss::cpu::cpu_backward));
}
