// Computes H_ij = scale a_i b_j G_ij of one tile from its products <x_i, y_j>, and the sums over G.
// Included once per instruction set.
//
//   G_ij = sum_c  gL theta e^(z_ij - L) (pace_ij if there is one)
//               + gE p (1 + theta (s_ij - E))  +  gH e^w sign psi'(u_ij)
//               + gV sign [j = index]
//
// L, gL, ... belong to row i for row channels and to column j for column channels. A mirrored tile,
// which also stands for the tile below the diagonal, has both.

template <class T>
struct Backward {
  const Problem<T>& problem;
  TileScratch<T> scratch;

  // What the LSE channels of one group with the same logits add to a tile. If all L lie within
  // kSpread of each other, e^(z - L) = e^(z - T) e^(T - L), and one exponential is enough for rows
  // and columns.
  struct Logs {
    Ref<T> like;
    bool shared;
    T middle;
    const T* column;  // if shared: the sum of gL theta e^(T - L_j)
    std::vector<Ref<T>> rows, columns;
  };

  std::vector<Logs> plan(const Tile<T>& t, bool mirrored) {
    std::vector<Logs> found;
    for (const Channel<T>& c : problem.channels) {
      if (c.kind != Kind::LSE || !c.grad_lse || c.theta == T(0)) continue;
      Logs* into = nullptr;
      for (Logs& l : found)
        if (l.like->group == c.group && l.like->same_logits(c)) into = &l;
      if (into == nullptr) {
        found.push_back(Logs{{&c}, false, 0, nullptr, {}, {}});
        into = &found.back();
      }
      if (!c.column || mirrored) into->rows.push_back({&c});
      if (c.column || mirrored) into->columns.push_back({&c});
    }
    bool taken = false;  // there is only one column buffer
    for (Logs& l : found)
      if (!taken && !l.rows.empty() && !l.columns.empty()) taken = share(l, t);
    return found;
  }

  bool share(Logs& l, const Tile<T>& t) {
    T low = INFINITY, high = -INFINITY;
    auto widen = [&](const T* lse, int64_t first, int64_t n) {
      for (int64_t k = first; k < first + n; ++k) {
        if (lse[k] == T(-INFINITY)) continue;
        low = lse[k] < low ? lse[k] : low;
        high = lse[k] > high ? lse[k] : high;
        if (lse[k] != lse[k]) low = -INFINITY;
      }
    };
    for (const Ref<T>& c : l.rows) widen(c->lse, t.i0, t.m);
    for (const Ref<T>& c : l.columns) widen(c->lse, t.j0, t.n);
    if (!(high - low <= kSpread<T>)) return false;
    l.middle = high < low ? T(0) : (low + high) / 2;  // high < low: all sets are empty
    T* column = scratch.columns;
    for (int64_t j = 0; j < t.n; ++j) column[j] = 0;
    for (const Ref<T>& c : l.columns)
      for (int64_t j = 0; j < t.n; ++j) column[j] += factor(*c, t.j0 + j, l.middle);
    l.column = column;
    return l.shared = true;
  }

  static T factor(const Channel<T>& c, int64_t k, T middle) {
    if (c.lse[k] == T(-INFINITY)) return 0;
    return c.grad_lse[k] * c.theta * VecMath::exp(middle - c.lse[k]);
  }

  // Adds `part` of <G, dots>: one half where every pair of a mirrored problem is visited twice.
  void visit(const Tile<T>& t, bool mirrored, T part) {
    const std::vector<Logs> logs = plan(t, mirrored);
    const std::vector<Cover> covered = covers(problem, t);
    if (fused(t, covered, logs, mirrored, part)) return;
    if (!mirrored && LoneSum<T, false, true>{problem}.visit(t, covered)) return;
    T *s = scratch.row, *z = s + t.ld, *g = z + t.ld, *w_row = g + t.ld;
    for (int64_t r = 0; r < t.m; ++r) {
      const int64_t i = t.i0 + r;
      T* dot = t.s + r * t.ld;
      score_row(problem, i, t.j0, t.n, dot, s);
      for (int64_t j = 0; j < t.n; ++j) g[j] = 0;
      for (size_t k = 0; k < problem.groups.size(); ++k) {
        if (covered[k] == Cover::NONE) continue;
        const T* w = nullptr;
        if (weighted(problem.groups[k], covered[k]))
          weight_row(problem.groups[k], i, t.j0, t.n, s, w_row), w = w_row;
        for (const Logs& l : logs)
          if (l.like->group == static_cast<int>(k)) add_logs(l, t, i, s, w, z, g);
        for (const Channel<T>& c : problem.channels)
          if (c.group == static_cast<int>(k)) add(c, t, i, mirrored, s, w, z, g);
      }
      finish_row(t, i, g, dot, part);
    }
  }

  // The most common case: LSE channels with theta = 1 that share one shift or reduce rows only, and
  // plain sums. Takes one pass from products to H.
  bool fused(const Tile<T>& t, const std::vector<Cover>& covered, const std::vector<Logs>& logs,
             bool mirrored, T part) {
    const Sums<T>& out = problem.sums;
    if (problem.gamma || out.row_bias || out.col_bias || out.col_dot) return false;
    const Roles<T> found = roles(problem, covered, [](const Channel<T>& c) {
      return (c.grad || c.grad_lse) && !(c.plain() && static_cast<Psi>(c.psi) == Psi::One);
    });
    if (!found.fusable) return false;
    Pass pass{found, nullptr, mirrored, part};
    for (const Logs& l : logs)
      if (l.like->group == found.logs && l.like->direct()) pass.logs = &l;
    const Logs& l = *pass.logs;
    if (!l.shared && !(l.columns.empty() && l.rows.size() == 1)) return false;
    problem.b ? to_h<true>(t, pass) : to_h<false>(t, pass);
    return true;
  }

  struct Pass {
    Roles<T> found;
    const Logs* logs;
    bool mirrored;
    T part;
  };

  template <bool SCALED>
  void to_h(const Tile<T>& t, const Pass& pass) {
    if (pass.found.masked) {
      problem.sums.row_dot ? to_h<SCALED, true, true>(t, pass) : to_h<SCALED, true, false>(t, pass);
    } else {
      problem.sums.row_dot ? to_h<SCALED, false, true>(t, pass)
                           : to_h<SCALED, false, false>(t, pass);
    }
  }

  template <bool SCALED, bool MASKED, bool DOT>
  void to_h(const Tile<T>& t, const Pass& pass) {
    pass.found.bounds ? to_h<SCALED, MASKED, DOT, true>(t, pass)
                      : to_h<SCALED, MASKED, DOT, false>(t, pass);
  }

  template <bool SCALED, bool MASKED, bool DOT, bool BOUNDED>
  void to_h(const Tile<T>& t, const Pass& pass) {
    const Logs& l = *pass.logs;
    const T* b = SCALED ? problem.b + t.j0 : nullptr;
    T *column = scratch.columns, *slopes = column + t.ld, *kept = scratch.row, *taken = kept + t.ld;
    for (int64_t j = 0; !l.shared && j < t.n; ++j) column[j] = 0;
    for (int64_t j = 0; MASKED && j < t.n; ++j) slopes[j] = slope(pass, true, t.j0 + j);
    for (int64_t r = 0; r < t.m; ++r) {
      const int64_t i = t.i0 + r;
      const T left = row_factor(problem, i), beta = problem.beta ? problem.beta[i] : T(0);
      // shared: row e^(z - T); otherwise the row's own slope e^(z - L). For an empty row: 0 e^-inf.
      const T lse = l.shared ? l.middle : l.rows[0]->lse[i];
      const T middle = lse == T(-INFINITY) ? T(INFINITY) : lse, start = beta - middle;
      T row = 0, total = 0;
      for (const Ref<T>& c : l.rows) row += factor(*c, i, middle);
      if (MASKED) {
        mask_row(problem, pass.found.logs, t, i, kept);
        mask_row(problem, pass.found.sums, t, i, taken);
      }
      const T own = MASKED ? slope(pass, false, i) : T(0);
      const T most = BOUNDED ? pass.found.bounds[i] : T(0);
      T* dot = t.s + r * t.ld;
#pragma omp simd reduction(+ : total)
      for (int64_t j = 0; j < t.n; ++j) {
        const T right = SCALED ? b[j] : T(1);
        const T product = dot[j] * right;
        // a bound compares the score as the forward pass rounds it
        const T s = BOUNDED ? dot[j] * left * right : product * left;
        T g = VecMath::exp(s + start) * (row + column[j]);
        if (BOUNDED) g = s > most ? T(0) : g;
        if (MASKED) {
          g = kept[j] == T(0) ? g : T(0);
          g += taken[j] == T(0) ? own + slopes[j] : T(0);
        }
        if (DOT) total += g * product;
        dot[j] = g * (left * right);
      }
      if (DOT) problem.sums.row_dot[i] += total * pass.part;
    }
  }

  // The gradient of the score of every pair that the plain sums of row or column k include.
  T slope(const Pass& pass, bool column, int64_t k) const {
    T total = 0;
    for (const Channel<T>& c : problem.channels)
      if (c.group == pass.found.sums && c.plain() && static_cast<Psi>(c.psi) == Psi::Id && c.grad &&
          (c.column == column || pass.mirrored))
        total += c.sign * c.grad[k];
    return total;
  }

  void add_logs(const Logs& l, const Tile<T>& t, int64_t i, const T* s, const T* w, T* z, T* g) {
    l.like->paced() ? add_logs<true>(l, t, i, s, w, z, g) : add_logs<false>(l, t, i, s, w, z, g);
  }

  template <bool PACED>
  void add_logs(const Logs& l, const Tile<T>& t, int64_t i, const T* s, const T* w, T* z, T* g) {
    const T *v = s, theta = l.like->theta, m = l.like->margin;
    if (w || !l.like->direct()) logits_row(*l.like, s, w, t.n, z), v = z;
    if (l.shared) {
      T row = 0;
      for (const Ref<T>& c : l.rows) row += factor(*c, i, l.middle);
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) {
        const T slope = (row + l.column[j]) * (PACED ? pace(s[j], m, theta < T(0)) : T(1));
        const T e = VecMath::exp(v[j] - l.middle);
        g[j] += e == T(0) ? T(0) : e * slope;
      }
      return;
    }
    for (const Ref<T>& c : l.rows) {
      const T lse = c->lse[i], slope = c->grad_lse[i] * theta;
      if (lse == T(-INFINITY) || slope == T(0)) continue;
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) {
        const T p = VecMath::exp(v[j] - lse) * slope;
        g[j] += PACED && p != T(0) ? p * pace(s[j], m, theta < T(0)) : p;
      }
    }
    for (const Ref<T>& c : l.columns) {
      const T *lse = c->lse + t.j0, *grad = c->grad_lse + t.j0;
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) {
        const T p = VecMath::exp(v[j] - lse[j]) * (theta * grad[j]);
        const T own = PACED && p != T(0) ? p * pace(s[j], m, theta < T(0)) : p;
        g[j] += lse[j] == T(-INFINITY) ? T(0) : own;
      }
    }
  }

  // One channel that is not an LSE: along its own axis or, if mirrored, along both.
  void add(const Channel<T>& c, const Tile<T>& t, int64_t i, bool mirrored, const T* s, const T* w,
           T* z, T* g) {
    if (c.kind == Kind::LSE || (!c.grad && !c.grad_lse)) return;
    for (int axis = 0; axis < 2; ++axis) {
      const bool by_column = axis == 1;
      if (by_column != c.column && !mirrored) continue;
      if (c.kind == Kind::EXPECT) expect(c, t, i, by_column, s, w, z, g);
      if (c.kind == Kind::MAX) maximum(c, t, i, by_column, g);
      if (c.kind == Kind::SUM) sum(c, t, i, by_column, s, w, g);
    }
  }

  void expect(const Channel<T>& c, const Tile<T>& t, int64_t i, bool by_column, const T* s,
              const T* w, T* z, T* g) {
    logits_row(c, s, w, t.n, z);
    for (int64_t j = 0; j < t.n; ++j) {
      const int64_t k = by_column ? t.j0 + j : i;
      const T lse = c.lse[k];
      if (lse == T(-INFINITY)) continue;
      const T p = VecMath::exp(z[j] - lse);
      if (p == T(0)) continue;
      T slope = c.grad_lse ? c.grad_lse[k] * c.theta : T(0);
      if (c.grad) slope += c.grad[k] * (T(1) + c.theta * (s[j] - c.mean[k]));
      g[j] += p * slope;
    }
  }

  void maximum(const Channel<T>& c, const Tile<T>& t, int64_t i, bool by_column, T* g) {
    if (!by_column) {
      const int64_t j = c.at[i] - t.j0;
      if (c.at[i] >= 0 && j >= 0 && j < t.n) g[j] += c.sign * c.grad[i];
      return;
    }
    for (int64_t j = 0; j < t.n; ++j)
      if (c.at[t.j0 + j] == i) g[j] += c.sign * c.grad[t.j0 + j];
  }

  template <Psi P>
  void sum_of(const Channel<T>& c, const Tile<T>& t, int64_t i, bool by_column, const T* s,
              const T* w, T* g) {
    T* part = scratch.columns + t.ld;
    const T sign = c.sign;
    if (by_column) {
      const T* shift = c.shift ? c.shift + t.j0 : nullptr;
      const T* grad = c.grad + t.j0;
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) {
        const T mu = shift ? shift[j] : T(0);
        part[j] = grad[j] * (sign * dpsi<P, T, VecMath>(sign * (s[j] - mu)));
      }
    } else {
      const T mu = c.shift ? c.shift[i] : T(0), slope = c.grad[i] * sign;
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) part[j] = slope * dpsi<P, T, VecMath>(sign * (s[j] - mu));
    }
    if (w) weigh_row(problem.groups[c.group], w, t.n, part);
    if (c.dshift == nullptr) {
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) g[j] += part[j];
      return;
    }
    T total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < t.n; ++j) {
      g[j] += part[j];
      total += part[j];
    }
    if (!by_column) {
      c.dshift[i] -= total;
    } else {
      for (int64_t j = 0; j < t.n; ++j) c.dshift[t.j0 + j] -= part[j];
    }
  }

  void sum(const Channel<T>& c, const Tile<T>& t, int64_t i, bool by_column, const T* s, const T* w,
           T* g) {
    switch (static_cast<Psi>(c.psi)) {
#define CL_CASE(P, name)                                                         \
  case Psi::P:                                                                   \
    if constexpr (sloped<Psi::P>()) sum_of<Psi::P>(c, t, i, by_column, s, w, g); \
    return;
      CL_EACH_PSI(CL_CASE)
#undef CL_CASE
    }
  }

  // Adds up the row's sums, then overwrites the products with H.
  void finish_row(const Tile<T>& t, int64_t i, const T* g, T* dot, T part) {
    const Sums<T>& out = problem.sums;
    const T* b = problem.b ? problem.b + t.j0 : nullptr;
    if (out.row_bias) {
      T total = 0;
#pragma omp simd reduction(+ : total)
      for (int64_t j = 0; j < t.n; ++j) total += g[j];
      out.row_bias[i] += total;
    }
    if (out.col_bias)
      for (int64_t j = 0; j < t.n; ++j) out.col_bias[t.j0 + j] += g[j];
    if (out.row_dot) {
      T total = 0;
      if (b) {
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < t.n; ++j) total += g[j] * dot[j] * b[j];
      } else {
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < t.n; ++j) total += g[j] * dot[j];
      }
      out.row_dot[i] += total * part;
    }
    const T a = problem.a ? problem.a[i] : T(1), left = problem.scale * a;
    if (out.col_dot)
      for (int64_t j = 0; j < t.n; ++j) out.col_dot[t.j0 + j] += g[j] * dot[j] * a;
    if (b == nullptr) {
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) dot[j] = g[j] * left;
    } else {
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) dot[j] = g[j] * left * b[j];
    }
  }
};
