// Reads a call's tensors into a Problem. contrastloss/backends/encode.py prepares the operands:
// contiguous, with at most one batch dimension, in the statistics' dtype, ids in int64, the program
// as integers. All of this is checked here, because anyone can call a registered operator.
#pragma once

#include <initializer_list>

#include "problem.h"
#include "tensor.h"

namespace contrastloss {

inline Tensor empty(const Tensor& like, std::vector<int64_t> shape, ScalarType dtype) {
  return torch::stable::new_empty(like, shape, dtype);
}

inline Element element(ScalarType type) {
  switch (type) {
    case ScalarType::Double: return Element::F64;
    case ScalarType::Float: return Element::F32;
    case ScalarType::BFloat16: return Element::BF16;
    case ScalarType::Half: return Element::F16;
    default: STD_TORCH_CHECK(false, "dtype: expected float64, float32, bfloat16 or float16");
  }
  return Element::F32;
}

inline int64_t bytes(Element e) { return e == Element::F64 ? 8 : e == Element::F32 ? 4 : 2; }

// The call's operands, in the order of the operator schema.
struct Operands {
  const Tensor& x;
  const OptionalTensor &y, &scale, &row_scale, &col_scale, &row_bias, &col_bias;
  const std::vector<Tensor>&rows, &cols;
  const Tensor &code, &values;
  bool cosine;
  ScalarType compute;

  // Checks that read no data. The readers below check the dtype and size of each tensor they take.
  void check() const {
    STD_TORCH_CHECK(x.dim() == 2 || x.dim() == 3, "x: got ", x.dim(),
                    " dimensions, expected 2 or 3");
    STD_TORCH_CHECK(d() >= 1, "x: got no features, expected at least one");
    require(x, "x", x, x.scalar_type(), x.numel());
    if (y) {
      require(*y, "y", x, x.scalar_type(), y->numel());
      STD_TORCH_CHECK(y->dim() == x.dim(), "y: got ", y->dim(), " dimensions, expected ", x.dim());
      STD_TORCH_CHECK(!batched() || y->size(0) == x.size(0), "y: expected the batch size of x");
      const int64_t features = y->size(y->dim() - 1);
      STD_TORCH_CHECK(features == d(), "y: got ", features, " features, expected ", d());
    }
    element(x.scalar_type()), element(compute);
    for (const OptionalTensor* t : {&scale, &row_scale, &col_scale, &row_bias, &col_bias})
      if (*t) require_device(**t, "scale or bias", x);
    for (const std::vector<Tensor>* side : {&rows, &cols})
      for (const Tensor& t : *side) require_device(t, "operand", x);
    STD_TORCH_CHECK(code.is_cpu() && values.is_cpu(), "program: expected CPU tensors");
  }

  bool batched() const { return x.dim() == 3; }
  int64_t batch() const { return batched() ? x.size(0) : 1; }
  int64_t m() const { return x.size(x.dim() - 2); }
  int64_t n() const { return y ? y->size(y->dim() - 2) : m(); }
  int64_t d() const { return x.size(x.dim() - 1); }

  // The shape of a result whose batch items have the shape `item`.
  std::vector<int64_t> shape(std::initializer_list<int64_t> item) const {
    std::vector<int64_t> found;
    if (batched()) found.push_back(batch());
    found.insert(found.end(), item);
    return found;
  }
};

// Which gradients a backward pass returns: one bit for each operand, in the order of NAMES in
// contrastloss/backends/call.py.
enum Need : int64_t {
  DX = 1,
  DY = 2,
  DSCALE = 4,
  DROW_SCALE = 8,
  DCOL_SCALE = 16,
  DROW_BIAS = 32,
  DCOL_BIAS = 64
};

// Reads the program that contrastloss/backends/encode.py writes. The program and its values are on
// the CPU, whatever the device of the other operands.
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
  // Reads a number below `count`; `what` names it in the error message.
  template <class Number = int>
  Number below(int64_t count, const char* what) {
    const int64_t k = next();
    STD_TORCH_CHECK(k >= 0 && k < count, "program: no such ", what, ": ", k);
    return static_cast<Number>(k);
  }
  double value() {
    const int64_t k = next();
    STD_TORCH_CHECK(k >= 0 && k < values_, "program: no such value");
    return value_[k];
  }

  // Reads an operand number and returns that operand's ids for this batch item. -1 gives null: the
  // positions themselves.
  const int64_t* ids(bool row, int64_t item) {
    const Tensor* t = operand(row);
    if (!t) return nullptr;
    const int64_t n = row ? o_.m() : o_.n();
    require(*t, "ids", ScalarType::Long, o_.batch() * n);
    return static_cast<const int64_t*>(t->data_ptr()) + item * n;
  }
  // Whether the next number names an operand.
  bool names_operand() const { return at_ < size_ && code_[at_] != -1; }
  // The extent E of the form whose row operand comes next. An empty tensor may have any E, and its
  // products with other sizes could overflow, so E is bounded.
  int64_t extent() {
    const Tensor* t = operand(true);
    STD_TORCH_CHECK(t && t->dim() >= 1, "program: a form without an operand");
    --at_;
    const int64_t e = t->size(t->dim() - 1);
    STD_TORCH_CHECK(e < int64_t(1) << 31, "operand: got a form of extent ", e,
                    ", expected less than 2^31");
    return e;
  }
  // Null also for an operand without elements.
  template <class T>
  const T* floats(bool row, int64_t item, int64_t extent = 1, bool needed = false) {
    const Tensor* t = operand(row);
    STD_TORCH_CHECK(t || !needed, "program: a weight without its operand");
    if (!t) return nullptr;
    const int64_t n = (row ? o_.m() : o_.n()) * extent;
    require(*t, "operand", kScalarType<T>, o_.batch() * n);
    return static_cast<const T*>(t->data_ptr()) + item * n;
  }

 private:
  // null for -1
  const Tensor* operand(bool row) {
    const int64_t k = next();
    if (k == -1) return nullptr;
    const std::vector<Tensor>& all = row ? o_.rows : o_.cols;
    STD_TORCH_CHECK(k >= 0 && k < int64_t(all.size()), "program: no such operand: ", k);
    return &all[static_cast<size_t>(k)];
  }

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
    test.op = in.below<Compare>(4, "test");
    test.row = in.ids(true, item);
    test.col = in.ids(false, item);
    test.width = in.next();
    group.tests.push_back(test);
  }
  if (symmetric) group.tests.push_back({Compare::NE, nullptr, nullptr, 0});
  for (int64_t k = in.next(); k > 0; --k) {
    Term<T> term;
    term.kind = in.below<TermKind>(8, "weight");
    term.value = static_cast<T>(in.value());
    term.extent = in.next();
    if (term.kind == TermKind::DIFFERING) {
      for (int64_t t = term.extent; t > 0; --t) {
        term.row_ids.push_back(in.ids(true, item));
        term.col_ids.push_back(in.ids(false, item));
      }
    } else {
      STD_TORCH_CHECK(term.extent == 1, "program: got a weight with ", term.extent,
                      " names, expected 1");
      if (term.is_form()) term.extent = in.extent();
      term.row = in.floats<T>(true, item, term.extent, term.kind != TermKind::COL);
      term.col = in.floats<T>(false, item, term.extent, !term.of_rows());
    }
    group.terms.push_back(term);
  }
  return group;
}

// Reads everything except the scale, whose value may be on another device.
template <class T>
Problem<T> read_problem(const Operands& o, int64_t item) {
  if (item == 0) o.check();  // once for all batch items
  Problem<T> p;
  const Element in = element(o.x.scalar_type()), rounded = element(o.compute);
  const int64_t m = o.m(), n = o.n(), d = o.d(), batch = o.batch();
  p.x = {static_cast<const char*>(o.x.data_ptr()) + item * m * d * bytes(in), in, rounded, m, d};
  p.symmetric = !o.y.has_value();
  p.y = p.x;
  if (o.y)
    p.y = {static_cast<const char*>(o.y->data_ptr()) + item * n * d * bytes(in), in, rounded, n, d};
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
    c.kind = read.below<Kind>(4, "kind");
    c.psi = read.below(8, "psi");
    c.column = read.next() != 0;
    c.group = read.below(int64_t(p.groups.size()), "group");
    c.theta = static_cast<T>(read.value());
    c.sign = static_cast<T>(read.value());
    c.margin = static_cast<T>(read.value());
    const bool shifted = read.names_operand();
    c.shift = read.floats<T>(!c.column, item);
    c.slot = shifted ? read.below(64, "shift") : static_cast<int>(read.next());
    STD_TORCH_CHECK(shifted || c.slot == -1, "program: a slot without a shift");
    p.channels.push_back(c);
  }
  return p;
}

}  // namespace contrastloss
