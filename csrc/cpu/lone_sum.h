// A tile that has one sum along rows and nothing else: its statistics, its gradients or, where
// neither needs the other, both at once, in one pass over the products and without storing scores.
// Included once per instruction set.

template <class T, bool STATISTICS, bool GRADIENTS>
struct LoneSum {
  const Problem<T>& problem;

  // Adds the tile to the sums and overwrites its products with H; false where it takes more.
  bool visit(const Tile<T>& t, const std::vector<Cover>& covered) const {
    const Sums<T>& out = problem.sums;
    if (problem.gamma || problem.b) return false;
    if (GRADIENTS && (out.col_bias || out.col_dot)) return false;
    const Channel<T>* c = only_sum(problem, covered, [](const Channel<T>& asked) {
      return STATISTICS || asked.grad || asked.grad_lse;
    });
    if (c == nullptr || (GRADIENTS && c->grad == nullptr)) return false;
    switch (static_cast<Psi>(c->psi)) {
#define CL_CASE(P, name)                                                           \
  case Psi::P:                                                                     \
    if constexpr (!GRADIENTS || sloped<Psi::P>()) return add<Psi::P>(*c, t), true; \
    return false;
      CL_EACH_PSI(CL_CASE)
#undef CL_CASE
    }
    return false;
  }

 private:
  template <Psi P>
  void add(const Channel<T>& c, const Tile<T>& t) const {
    const Sums<T>& out = problem.sums;
    const T sign = c.sign;
    for (int64_t r = 0; r < t.m; ++r) {
      const int64_t i = t.i0 + r;
      const T left = row_factor(problem, i), beta = problem.beta ? problem.beta[i] : T(0);
      const T mu = c.shift ? c.shift[i] : T(0), slope = GRADIENTS ? c.grad[i] * sign : T(0);
      T* dot = t.s + r * t.ld;
      T total = 0, slopes = 0, dots = 0;
#pragma omp simd reduction(+ : total, slopes, dots)
      for (int64_t j = 0; j < t.n; ++j) {
        const T product = dot[j], u = sign * (product * left + beta - mu);
        if (STATISTICS) total += psi<P, T, VecMath>(u);
        if (GRADIENTS) {
          const T g = slope * dpsi<P, T, VecMath>(u);
          slopes += g;
          dots += g * product;
          dot[j] = g * left;
        }
      }
      if (STATISTICS) c.sum[i] += total;
      if (!GRADIENTS) continue;
      if (c.dshift) c.dshift[i] -= slopes;
      if (out.row_bias) out.row_bias[i] += slopes;
      if (out.row_dot) out.row_dot[i] += dots;
    }
  }
};
