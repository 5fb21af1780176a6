// A call as tensors, read into a Problem. Operands arrive as contrastloss/backends/encode.py
// prepares them: contiguous, one batch dimension or none, the statistics' dtype, int64 ids, and the
// program as integers.
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

// Reads the program, which contrastloss/backends/encode.py writes. Program and values are on the
// CPU whatever the device of the rest.
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

// All but the scale, whose value may be on another device.
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

}  // namespace contrastloss
