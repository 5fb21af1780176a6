// The operators contrastloss::cpu_forward and cpu_backward: pair_stats on CPU tensors.
#include "call.h"
#include "state.h"

namespace contrastloss::cpu {
namespace {

// ---- forward ------------------------------------------------------------------------------------

template <class T>
std::vector<Tensor> forward(const Operands& o, const Engine& e) {
  std::vector<Tensor> outputs;
  for (int64_t item = 0; item < std::max<int64_t>(o.batch(), 1); ++item) {
    const bool any = o.batch() > 0;
    Problem<T> p = problem<T>(o, item);
    const State<T> rows(p, false, 0, o.m()), cols(p, true, 0, o.n());
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
      T* values = static_cast<T*>(output(n, kScalarType<T>));
      int64_t* index =
          c.kind == Kind::MAX ? static_cast<int64_t*>(output(n, ScalarType::Long)) : nullptr;
      T* lse = c.kind == Kind::EXPECT ? static_cast<T*>(output(n, kScalarType<T>)) : nullptr;
      for (int64_t k = 0; any && k < n; ++k) {
        values[k] = value(c, k);
        if (index) index[k] = c.index[k];
        if (lse) lse[k] = log_sum(c, k);
      }
    }
  }
  return outputs;
}

// ---- backward -----------------------------------------------------------------------------------

template <class T>
class BackwardPass {
 public:
  BackwardPass(const Operands& o, const std::vector<Tensor>& outputs,
               const std::vector<Tensor>& grads, int64_t live, int64_t needs)
      : o_(o), outputs_(outputs), grads_(grads), live_(live), found_(o, needs) {}

  std::vector<Tensor> run_all(const Engine& e) {
    const Problem<T> p = problem<T>(o_, 0);
    check(p);
    Shifts<T> shifts(o_, p, found_);
    for (int64_t item = 0; item < o_.batch(); ++item) run_item(e, item, shifts);
    std::vector<Tensor> all = found_.tensors();
    all.insert(all.end(), shifts.tensors().begin(), shifts.tensors().end());
    return all;
  }

 private:
  // Checks that there is one statistic per value that the channels return, and one gradient per
  // live value.
  void check(const Problem<T>& p) const {
    size_t expected = 0, live = 0;
    for (const Channel<T>& c : p.channels)
      expected += c.kind == Kind::MAX || c.kind == Kind::EXPECT ? 2 : 1;
    STD_TORCH_CHECK(outputs_.size() == expected && expected < 64, "outputs: got ", outputs_.size(),
                    " tensors, expected ", expected);
    for (size_t k = 0; k < expected; ++k) live += live_ >> k & 1;
    STD_TORCH_CHECK(live_ >= 0 && live_ >> expected == 0, "live: got ", live_);
    STD_TORCH_CHECK(grads_.size() == live, "grads: got ", grads_.size(), ", expected ", live);
  }

  // Sets the forward pass's statistics and their gradients of one batch item.
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

  void run_item(const Engine& e, int64_t item, Shifts<T>& shifts) {
    Problem<T> p = problem<T>(o_, item);
    const Norms<T> norms(o_, e, p);
    attach(p, item);
    found_.begin(p, item);
    shifts.begin(p);
    p.mirror = found_.mirrors(p);
    e.of(T()).backward(p, threads(), run_gradients);
    found_.finish(e, p, norms, item);
    shifts.finish(item);
  }

  const Operands& o_;
  const std::vector<Tensor>&outputs_, &grads_;
  const int64_t live_;
  Gradients<T> found_;
};

// ---- operators ----------------------------------------------------------------------------------

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
}  // namespace contrastloss::cpu

STABLE_TORCH_LIBRARY_IMPL(contrastloss, CPU, m) {
  m.impl("cpu_forward", TORCH_BOX(&contrastloss::cpu::cpu_forward));
  m.impl("cpu_backward", TORCH_BOX(&contrastloss::cpu::cpu_backward));
}
