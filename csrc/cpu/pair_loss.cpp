// The operators contrastloss::cpu_pair_loss and cpu_scale: a sum of losses of rows together with
// its gradients, on CPU tensors.
//
// If the losses are sums of terms of pairs, gradients do not depend on statistics: each tile gives
// both. Otherwise a strip of rows meets all columns, and its products are kept: the statistics of
// its rows are then complete, and so are the gradients of their losses, without a second product of
// x and y. Each thread has a chunk of the columns. Statistics of columns need a strip of all rows.
#include "../channel.h"
#include "call.h"
#include "state.h"

namespace contrastloss::cpu {
namespace {

// A term of a row's loss: weight (v[plus] - v[minus]) of the channels' values, or weight
// softplus(v[plus] - v[minus]); -1 stands for 0.
struct Part {
  bool softplus;
  int64_t plus, minus;
  double weight;
};

std::vector<Part> read_parts(const Tensor& code, const Tensor& weights, size_t channels) {
  const int64_t count = weights.numel();
  require(weights, "weights", ScalarType::Double, count);
  require(code, "parts", ScalarType::Long, 3 * count);
  const int64_t* at = static_cast<const int64_t*>(code.data_ptr());
  std::vector<Part> found;
  for (int64_t k = 0; k < count; ++k, at += 3) {
    for (int e = 1; e < 3; ++e)
      STD_TORCH_CHECK(at[e] >= -1 && at[e] < int64_t(channels), "parts: no such channel: ", at[e]);
    found.push_back({at[0] != 0, at[1], at[2], static_cast<const double*>(weights.data_ptr())[k]});
  }
  return found;
}

template <class T>
class LossPass {
 public:
  LossPass(const Operands& o, const Engine& e, int64_t rows, const Tensor& code,
           const Tensor& weights, const OptionalTensor& row_weight, double divisor, int64_t needs)
      : routines_(e.of(T())),
        p_(problem<T>(o, 0)),
        norms_(o, e, p_),
        m_(p_.x.rows),
        n_(p_.y.rows),
        rows_(rows),
        row_state_(p_, false, 0, m_),
        col_state_(p_, true, 0, n_),
        parts_(read_parts(code, weights, p_.channels.size())),
        row_weight_(data<T>(row_weight, "row_weight", m_)),
        divisor_(divisor),
        at_once_(rows == 0),
        found_(o, needs, !at_once_ && !p_.symmetric && m_ && n_),
        shifts_(o, p_, found_) {
    STD_TORCH_CHECK(!o.batched(), "x: got a batch dimension, expected (M, D)");
    check(needs);
    outputs(o);
    found_.begin(p_, 0);
    p_.mirror = found_.mirrors(p_);
  }

  std::vector<Tensor> run(const Engine& e) {
    if (at_once_) {
      add_slopes(0, m_);
      shifts_.begin(p_);
      routines_.at_once(p_, threads(), run_gradients);
      shifts_.finish(0);
      add_losses(0, m_);
    } else {
      share();
      for (int64_t r0 = 0; r0 < m_; r0 += rows_) strip(r0, std::min(m_, r0 + rows_));
    }
    found_.finish(e, p_, norms_, 0);
    std::vector<Tensor> all{found_.zeros({})};
    *static_cast<T*>(all[0].data_ptr()) = static_cast<T>(loss_ / divisor_);
    all.insert(all.end(), outputs_.begin(), outputs_.end());
    const std::vector<Tensor> gradients = found_.tensors();
    all.insert(all.end(), gradients.begin(), gradients.end());
    all.insert(all.end(), shifts_.tensors().begin(), shifts_.tensors().end());
    return all;
  }

 private:
  // One chunk of columns: its problem, whose sums over rows are its own.
  struct Chunk {
    Problem<T> problem;
    int64_t c0, c1;
    T *kept, *dx;
    std::vector<double> row_dot, row_bias;
    std::optional<State<T>> state;
  };

  bool sums_alone() const {
    auto sum = [&](int64_t k) {
      return k < 0 || p_.channels[static_cast<size_t>(k)].kind == Kind::SUM;
    };
    return std::all_of(parts_.begin(), parts_.end(), [&](const Part& part) {
      return !part.softplus && sum(part.plus) && sum(part.minus);
    });
  }

  void check(int64_t needs) {
    bool columns = false;
    for (const Channel<T>& c : p_.channels) {
      STD_TORCH_CHECK(c.slot == -1 || at_once_, "channels: got a shift, expected none");
      STD_TORCH_CHECK(c.kind != Kind::EXPECT, "channels: got EXPECT, expected none");
      columns |= c.column;
    }
    bool of_columns = false;
    for (const Part& part : parts_)
      for (int64_t k : {part.plus, part.minus}) {
        if (k < 0) continue;
        const Channel<T>& c = p_.channels[static_cast<size_t>(k)];
        STD_TORCH_CHECK(c.kind != Kind::MAX, "parts: got a maximum, expected none");
        of_columns |= c.column;
      }
    STD_TORCH_CHECK(!of_columns || m_ == n_, "parts: got columns, expected as many as rows");
    STD_TORCH_CHECK(at_once_ ? sums_alone() : rows_ >= 1 && (rows_ >= m_ || !columns), "rows: got ",
                    rows_, ", expected 0 for sums, all for channels of columns");
    STD_TORCH_CHECK(needs >= 0 && needs < 128, "needs: got ", needs);
  }

  void outputs(const Operands& o) {
    for (Channel<T>& c : p_.channels) {
      const int64_t length = c.column ? n_ : m_;
      outputs_.push_back(empty(o.x, {length}, kScalarType<T>));
      values_.push_back(static_cast<T*>(outputs_.back().data_ptr()));
      (c.kind == Kind::LSE ? c.lse : c.mean) = values_.back();
      int64_t* at = nullptr;
      if (c.kind == Kind::MAX) {
        outputs_.push_back(empty(o.x, {length}, ScalarType::Long));
        at = static_cast<int64_t*>(outputs_.back().data_ptr());
      }
      indices_.push_back(at);
      slopes_.emplace_back();
    }
    for (const Part& part : parts_)
      for (int64_t k : {part.plus, part.minus}) {
        if (k < 0) continue;
        Channel<T>& c = p_.channels[static_cast<size_t>(k)];
        std::vector<T>& slope = slopes_[static_cast<size_t>(k)];
        slope.assign(static_cast<size_t>(c.column ? n_ : m_), T(0));
        (c.kind == Kind::LSE ? c.grad_lse : c.grad) = slope.data();
      }
  }

  // Cuts the columns into chunks, one per thread if there is enough work. Each has gradients of the
  // strip's rows: who chooses the strip (backends/cpu.py) limits the memory that these take.
  void share() {
    constexpr int64_t kUnit = 32;
    const int64_t units = (n_ + kUnit - 1) / kUnit, rows = std::min(rows_, m_);
    int64_t parts = static_cast<int64_t>(std::min(p_.work(), double(threads())));
    parts = std::max<int64_t>(std::min(parts, units), 1);
    // the first chunk adds to the result, unless rows of that are also another chunk's columns
    const int64_t first = p_.symmetric ? 0 : 1, own = std::max<int64_t>(0, parts - first);
    const int64_t d = parts > 1 && p_.sums.dx ? p_.x.cols : 0;
    held_.emplace(rows * (n_ + own * d) * int64_t(sizeof(T)));
    T* memory = static_cast<T*>(held_->memory);
    for (int64_t k = 0; k < parts; ++k) {
      const int64_t c0 = std::min(n_, units * k / parts * kUnit);
      const int64_t c1 = std::min(n_, units * (k + 1) / parts * kUnit);
      T* dx = d && k >= first ? memory + rows * (n_ + (k - first) * d) : nullptr;
      chunks_.push_back(Chunk{p_, c0, c1, memory + rows * c0, dx, {}, {}, {}});
    }
  }

  void strip(int64_t r0, int64_t r1) {
    r0_ = r0, r1_ = r1;
    const int64_t parts = static_cast<int64_t>(chunks_.size());
    run_parallel(parts, forward, this);
    for (const Chunk& chunk : chunks_)
      if (parts > 1) routines_.merge_rows(p_, chunk.problem, r0, r1);
    add_losses(r0, r1);
    add_slopes(r0, r1);
    run_gradients(parts, backward, this);
    if (parts > 1) run_parallel(parts, add_gradients, this);
    for (const Chunk& chunk : chunks_)
      for (int64_t i = r0; parts > 1 && i < r1; ++i) {
        const size_t at = static_cast<size_t>(i - r0);
        if (p_.sums.row_dot) p_.sums.row_dot[i] += chunk.row_dot[at];
        if (p_.sums.row_bias) p_.sums.row_bias[i] += chunk.row_bias[at];
      }
  }

  Strip<T> strip_of(const Chunk& chunk) const {
    return {r0_, r1_, chunk.c0, chunk.c1, chunk.kept, p_.sums.dx};
  }

  static void forward(void* self, int64_t k) {
    LossPass& pass = *static_cast<LossPass*>(self);
    Chunk& chunk = pass.chunks_[static_cast<size_t>(k)];
    if (pass.chunks_.size() > 1) chunk.state.emplace(chunk.problem, false, pass.r0_, pass.r1_);
    pass.routines_.strip_forward(chunk.problem, pass.strip_of(chunk));
  }

  static void backward(void* self, int64_t k) {
    LossPass& pass = *static_cast<LossPass*>(self);
    Chunk& chunk = pass.chunks_[static_cast<size_t>(k)];
    const int64_t rows = pass.r1_ - pass.r0_, d = pass.p_.x.cols;
    if (pass.chunks_.size() > 1) {
      Sums<T>& sums = chunk.problem.sums;
      if (chunk.dx) {
        if (pass.p_.symmetric) std::fill_n(chunk.dx, rows * d, T(0));
        sums.dx = chunk.dx - pass.r0_ * d;
      }
      auto own = [&](double*& sum, std::vector<double>& of) {
        if (!sum) return;
        of.assign(static_cast<size_t>(rows), 0.0);
        sum = of.data() - pass.r0_;
      };
      own(sums.row_dot, chunk.row_dot);
      own(sums.row_bias, chunk.row_bias);
    }
    pass.routines_.strip_backward(chunk.problem, pass.strip_of(chunk));
  }

  // Adds all chunks' gradients of some of the strip's rows, in the chunks' order.
  static void add_gradients(void* self, int64_t k) {
    LossPass& pass = *static_cast<LossPass*>(self);
    if (!pass.p_.sums.dx) return;
    const int64_t parts = static_cast<int64_t>(pass.chunks_.size());
    const int64_t size = (pass.r1_ - pass.r0_) * pass.p_.x.cols;
    T* dx = pass.p_.sums.dx + pass.r0_ * pass.p_.x.cols;
    for (const Chunk& chunk : pass.chunks_)
      for (int64_t e = size * k / parts; chunk.dx && e < size * (k + 1) / parts; ++e)
        dx[e] += chunk.dx[e];
  }

  // The values and losses of rows, and the values of columns where these have channels.
  void add_losses(int64_t r0, int64_t r1) {
    for (size_t k = 0; k < p_.channels.size(); ++k) {
      const Channel<T>& c = p_.channels[k];
      for (int64_t i = c.column ? 0 : r0; i < (c.column ? n_ : r1); ++i) {
        values_[k][i] = value(c, i);
        if (indices_[k]) indices_[k][i] = c.index[i];
      }
    }
    for (int64_t i = r0; i < r1; ++i) {
      double loss = 0;
      for (const Part& part : parts_) {
        const double u = at(part.plus, i) - at(part.minus, i);
        loss += part.weight * (part.softplus ? psi<Psi::Softplus>(u) : u);
      }
      loss_ += row_weight_ ? double(row_weight_[i]) * loss : loss;
    }
  }

  // What the values of rows, and of columns, multiply in the gradient. Of sums it needs no values.
  void add_slopes(int64_t r0, int64_t r1) {
    auto add = [&](int64_t channel, int64_t i, double slope) {
      if (channel >= 0) slopes_[static_cast<size_t>(channel)][size_t(i)] += T(slope);
    };
    for (int64_t i = r0; i < r1; ++i)
      for (const Part& part : parts_) {
        const double u = part.softplus ? at(part.plus, i) - at(part.minus, i) : 0.0;
        const double rise = part.softplus ? dpsi<Psi::Softplus>(u) : 1.0;
        const double slope = weight(part, i) / divisor_ * rise;
        add(part.plus, i, slope), add(part.minus, i, -slope);
      }
  }

  double at(int64_t channel, int64_t i) const {
    return channel < 0 ? 0.0 : double(values_[static_cast<size_t>(channel)][i]);
  }

  double weight(const Part& part, int64_t i) const {
    return row_weight_ ? part.weight * double(row_weight_[i]) : part.weight;
  }

  const Routines<T>& routines_;
  Problem<T> p_;
  const Norms<T> norms_;
  const int64_t m_, n_, rows_;
  const State<T> row_state_, col_state_;
  const std::vector<Part> parts_;
  const T* const row_weight_;
  const double divisor_;
  const bool at_once_;
  Gradients<T> found_;
  Shifts<T> shifts_;
  double loss_ = 0;
  std::vector<Tensor> outputs_;
  std::vector<T*> values_;
  std::vector<int64_t*> indices_;
  std::vector<std::vector<T>> slopes_;
  std::optional<Held> held_;  // the kept products, and chunks' gradients of rows
  std::vector<Chunk> chunks_;
  int64_t r0_ = 0, r1_ = 0;
};

std::vector<Tensor> cpu_pair_loss(Tensor x, OptionalTensor y, OptionalTensor scale,
                                  OptionalTensor row_scale, OptionalTensor col_scale,
                                  OptionalTensor row_bias, OptionalTensor col_bias,
                                  std::vector<Tensor> rows, std::vector<Tensor> cols, Tensor code,
                                  Tensor values, bool cosine, ScalarType compute, int64_t isa,
                                  int64_t strip, Tensor parts, Tensor weights,
                                  OptionalTensor row_weight, double divisor, int64_t needs) {
  const Operands o{x,    y,    scale, row_scale, col_scale, row_bias, col_bias,
                   rows, cols, code,  values,    cosine,    compute};
  const Engine& e = engine(isa);
  if (x.scalar_type() == ScalarType::Double)
    return LossPass<double>(o, e, strip, parts, weights, row_weight, divisor, needs).run(e);
  return LossPass<float>(o, e, strip, parts, weights, row_weight, divisor, needs).run(e);
}

// ---- backward -----------------------------------------------------------------------------------

template <class T>
void scale(const Tensor& grad, const std::vector<Tensor>& units) {
  require(grad, "grad", kScalarType<T>, grad.numel());
  const T* by = static_cast<const T*>(grad.data_ptr());
  for (const Tensor& unit : units) {
    require(unit, "unit", kScalarType<T>, unit.numel());
    struct Context {
      T* unit;
      const T* by;
      int64_t rows, width, parts;
    } c{static_cast<T*>(unit.data_ptr()), by, grad.numel(), 0, 1};
    // one factor for all, or one for each row
    STD_TORCH_CHECK(c.rows >= 1 && unit.numel() % c.rows == 0, "grad: got ", c.rows,
                    " elements, expected one, or one for each row of ", unit.numel());
    if (c.rows == 1 && by[0] == T(1)) continue;
    c.width = unit.numel() / c.rows;
    c.parts = std::clamp<int64_t>(unit.numel() / 65536, 1, threads());
    auto chunk = [](void* context, int64_t k) {
      const Context& c = *static_cast<Context*>(context);
      const int64_t size = c.rows * c.width, last = size * (k + 1) / c.parts;
      for (int64_t e = size * k / c.parts; e < last;) {
        const int64_t end = std::min(last, (e / c.width + 1) * c.width);
        for (const T factor = c.by[e / c.width]; e < end; ++e) c.unit[e] *= factor;
      }
    };
    run_parallel(c.parts, chunk, &c);
  }
}

// Multiplies the gradients that cpu_pair_loss found by the gradient of the loss; or those of its
// rows' operands alone by the gradients of the rows' losses.
void cpu_scale(Tensor grad, std::vector<Tensor> units) {
  grad.scalar_type() == ScalarType::Double ? scale<double>(grad, units) : scale<float>(grad, units);
}

}  // namespace
}  // namespace contrastloss::cpu

STABLE_TORCH_LIBRARY_IMPL(contrastloss, CPU, m) {
  m.impl("cpu_pair_loss", TORCH_BOX(&contrastloss::cpu::cpu_pair_loss));
  m.impl("cpu_scale", TORCH_BOX(&contrastloss::cpu::cpu_scale));
}
