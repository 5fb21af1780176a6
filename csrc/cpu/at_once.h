// The statistics and the gradients of a tile at once, where neither needs the other: of a sum along
// rows and nothing else. Included once per instruction set.

template <class T>
struct AtOnce {
  const Problem<T>& problem;

  // Adds a tile to the sums and overwrites its products with H; false where that takes two passes.
  bool visit(const Tile<T>& t) const {
    const Sums<T>& out = problem.sums;
    if (problem.gamma || problem.b || out.col_bias || out.col_dot) return false;
    const std::vector<Cover> covered = covers(problem, t);
    const Channel<T>* c = only_sum(problem, covered, [](const Channel<T>&) { return true; });
    if (c == nullptr || c->grad == nullptr) return false;
    switch (static_cast<Psi>(c->psi)) {
#define CL_CASE(P, name)                                                  \
  case Psi::P:                                                            \
    if constexpr (sloped<Psi::P>()) return lone_sum<Psi::P>(*c, t), true; \
    return false;
      CL_EACH_PSI(CL_CASE)
#undef CL_CASE
    }
    return false;
  }

  template <Psi P>
  void lone_sum(const Channel<T>& c, const Tile<T>& t) const {
    const Sums<T>& out = problem.sums;
    const T sign = c.sign;
    for (int64_t r = 0; r < t.m; ++r) {
      const int64_t i = t.i0 + r;
      const T left = row_factor(problem, i), beta = problem.beta ? problem.beta[i] : T(0);
      const T mu = c.shift ? c.shift[i] : T(0), slope = c.grad[i] * sign;
      T* dot = t.s + r * t.ld;
      T total = 0, slopes = 0, dots = 0;
#pragma omp simd reduction(+ : total, slopes, dots)
      for (int64_t j = 0; j < t.n; ++j) {
        const T product = dot[j];
        const T u = sign * (product * left + beta - mu);
        const T g = slope * dpsi<P, T, VecMath>(u);
        total += psi<P, T, VecMath>(u);
        slopes += g;
        dots += g * product;
        dot[j] = g * left;
      }
      c.sum[i] += total;
      if (c.dshift) c.dshift[i] -= slopes;
      if (out.row_bias) out.row_bias[i] += slopes;
      if (out.row_dot) out.row_dot[i] += dots;
    }
  }
};
