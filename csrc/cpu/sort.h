// Relaxed sorting networks. Included once per instruction set.
//
// The matrices W of the comparators are those of relaxed.h, and P is their product: sorted = x P, P
// t = W_1 (W_2 ... (W_C t)). A block of rows is processed at once, one row per lane: wire i of all
// of them is one vector.
//
// Backward, from the gradients r of the sorted row and g of P t:
//   x forwards:   keep delta and w of every comparator
//   t backwards:  keep e = v_b - v_a before every comparator
//   g forwards:   dw += (g_b - g_a) e, g <- W g; the result is dt
//   r backwards:  dw += (r_b - r_a) delta, r <- W r, then r_a -= F' dw and r_b += F' dw; the
//                 result is dx

template <class T, int W>
struct Lanes {
  T at[W];
};

template <class T, int W, Swap S>
struct SortBlock {
  using Vec = Lanes<T, W>;
  const SortProblem<T>& p;
  const int64_t n = p.wires, comparators = p.comparators;
  Vec *x = nullptr, *v = nullptr, *g = nullptr, *r = nullptr, *w = nullptr;
  Vec *delta = nullptr, *e = nullptr, *dw = nullptr;  // the backward pass's
  Vec beta, dbeta;
  int64_t first = 0, rows = 0;
  Carver carver;

  SortBlock(const SortProblem<T>& problem, bool backward)
      : p(problem), carver([&](Carver& memory) { layout(memory, backward); }) {}

  static int64_t bytes(const SortProblem<T>& p, bool backward) {
    const int64_t kept = backward ? 4 * p.comparators : p.comparators;
    return (4 * p.wires + kept) * int64_t(sizeof(Vec));
  }

  void layout(Carver& memory, bool backward) {
    for (Vec** wires : {&x, &v, &g, &r}) *wires = memory.take<Vec>(n);
    w = memory.take<Vec>(comparators);
    if (backward)
      for (Vec** kept : {&delta, &e, &dw}) *kept = memory.take<Vec>(comparators);
  }

  int a(int64_t c) const { return p.ends[2 * c]; }
  int b(int64_t c) const { return p.ends[2 * c + 1]; }

  // Loads rows of `from`, `stride` apart, into wires; lanes without a row hold zeros.
  void load(const T* from, int64_t stride, Vec* to) const {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t l = 0; l < W; ++l) to[i].at[l] = l < rows ? from[l * stride + i] : T(0);
  }
  void store(const Vec* from, T* to, int64_t stride) const {
    for (int64_t l = 0; l < rows; ++l)
      for (int64_t i = 0; i < n; ++i) to[l * stride + i] = from[i].at[l];
  }

  void begin(int64_t row) {
    first = row;
    rows = std::min<int64_t>(W, p.rows - row);
    for (int64_t l = 0; l < W; ++l) beta.at[l] = l < rows ? p.beta[row + l] : T(1);
    load(p.x + row * n, n, x);
  }

  void sort(bool keep) {
    for (int64_t c = 0; c < comparators; ++c) {
      Vec &low = x[a(c)], &high = x[b(c)], &weight = w[c];
      Vec* kept = keep ? &delta[c] : nullptr;
#pragma omp simd
      for (int l = 0; l < W; ++l) {
        const T d = high.at[l] - low.at[l];
        const T f = Relaxed<T, S, VecMath>{beta.at[l], p.art_lambda}.weight(d);
        weight.at[l] = f;
        const T moved = f * d, up = low.at[l] + moved;
        low.at[l] = high.at[l] - moved;
        high.at[l] = up;
        if (kept) kept->at[l] = d;
      }
    }
  }

  // Applies W of comparator c to `wires`; the difference before it goes to `kept`.
  CL_INLINE void mix(int64_t c, Vec* wires, Vec* kept) const {
    Vec &low = wires[a(c)], &high = wires[b(c)];
    const Vec& weight = w[c];
#pragma omp simd
    for (int l = 0; l < W; ++l) {
      const T d = high.at[l] - low.at[l], moved = weight.at[l] * d, up = low.at[l] + moved;
      low.at[l] = high.at[l] - moved;
      high.at[l] = up;
      if (kept) kept->at[l] = d;
    }
  }

  void load_mass(int64_t t) const {
    const int64_t per_row = p.masses * n;
    const T* from = p.t + t * n + (p.shared ? 0 : first * per_row);
    load(from, p.shared ? 0 : per_row, v);
  }

  void forward(int64_t row) {
    begin(row);
    sort(false);
    store(x, p.sorted + row * n, n);
    for (int64_t t = 0; t < p.masses; ++t) {
      load_mass(t);
      for (int64_t c = comparators - 1; c >= 0; --c) mix(c, v, nullptr);
      store(v, p.mass + (row * p.masses + t) * n, p.masses * n);
    }
  }

  void backward(int64_t row) {
    begin(row);
    sort(true);
    for (int64_t c = 0; c < comparators; ++c) dw[c] = Vec{};
    dbeta = Vec{};
    for (int64_t t = 0; t < p.masses; ++t) {
      load_mass(t);
      for (int64_t c = comparators - 1; c >= 0; --c) mix(c, v, &e[c]);
      load(p.grad_mass + (row * p.masses + t) * n, p.masses * n, g);
      for (int64_t c = 0; c < comparators; ++c) {
        Vec difference;
        mix(c, g, &difference);
        for (int l = 0; l < W; ++l) dw[c].at[l] += difference.at[l] * e[c].at[l];
      }
      if (p.dt) store(g, p.dt + (row * p.masses + t) * n, p.masses * n);
    }
    load(p.grad_sorted + row * n, n, r);
    for (int64_t c = comparators - 1; c >= 0; --c) {
      Vec difference;
      mix(c, r, &difference);
      Vec &low = r[a(c)], &high = r[b(c)];
#pragma omp simd
      for (int l = 0; l < W; ++l) {
        const T total = dw[c].at[l] + difference.at[l] * delta[c].at[l];
        T by_delta, by_beta;
        Relaxed<T, S, VecMath>{beta.at[l], p.art_lambda}.slopes(delta[c].at[l], w[c].at[l],
                                                                by_delta, by_beta);
        low.at[l] -= by_delta * total;
        high.at[l] += by_delta * total;
        dbeta.at[l] += by_beta * total;
      }
    }
    if (p.dx) store(r, p.dx + row * n, n);
    for (int64_t l = 0; p.dbeta && l < rows; ++l) p.dbeta[row + l] = dbeta.at[l];
  }
};

template <class T, int W, Swap S, bool BACKWARD>
void sort_rows(const SortProblem<T>& problem, int threads, Parallel parallel) {
  struct Context {
    const SortProblem<T>& problem;
    int64_t blocks, parts;
  } context{problem, (problem.rows + W - 1) / W, 1};
  const double work = double(problem.rows) * double(problem.comparators) *
                      double(problem.masses + 2) * (BACKWARD ? 3 : 1) / 4e4;
  context.parts = std::clamp<int64_t>(static_cast<int64_t>(work), 1,
                                      std::min<int64_t>(threads, context.blocks));
  auto part = [](void* self, int64_t k) {
    const Context& c = *static_cast<Context*>(self);
    SortBlock<T, W, S> block(c.problem, BACKWARD);
    for (int64_t i = c.blocks * k / c.parts; i < c.blocks * (k + 1) / c.parts; ++i)
      poll(), BACKWARD ? block.backward(i * W) : block.forward(i * W);
  };
  parallel(context.parts, part, &context);
}

template <class T, bool BACKWARD, Swap S>
void sort_by(const SortProblem<T>& problem, int threads, Parallel parallel) {
  constexpr int kLanes = kVectorBytes / sizeof(T);
  constexpr int64_t kMost = int64_t(64) << 20;
  if (problem.rows == 0) return;
  if (SortBlock<T, kLanes, S>::bytes(problem, BACKWARD) <= kMost) {
    sort_rows<T, kLanes, S, BACKWARD>(problem, threads, parallel);
  } else {  // long networks: one row per lane would take too much memory
    sort_rows<T, 1, S, BACKWARD>(problem, threads, parallel);
  }
}

template <class T, bool BACKWARD>
void sort_network(const SortProblem<T>& problem, int threads, Parallel parallel) {
  switch (problem.swap) {
    case Swap::CAUCHY: return sort_by<T, BACKWARD, Swap::CAUCHY>(problem, threads, parallel);
    case Swap::LOGISTIC: return sort_by<T, BACKWARD, Swap::LOGISTIC>(problem, threads, parallel);
    case Swap::LOGISTIC_PHI:
      return sort_by<T, BACKWARD, Swap::LOGISTIC_PHI>(problem, threads, parallel);
    case Swap::GAUSSIAN: return sort_by<T, BACKWARD, Swap::GAUSSIAN>(problem, threads, parallel);
    case Swap::RECIPROCAL:
      return sort_by<T, BACKWARD, Swap::RECIPROCAL>(problem, threads, parallel);
    case Swap::OPTIMAL: return sort_by<T, BACKWARD, Swap::OPTIMAL>(problem, threads, parallel);
  }
}
