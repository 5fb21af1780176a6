// Adds one tile to every statistic. Included once per instruction set.
//
// LSE keeps (top, sum) per row or column, with sum in double: sum_j exp(z_j) = sum exp(top). A tile
// adds float partial sums under its own shift. If the tile's logits lie within kSpread of each
// other, the shift is the tile's maximum, and one exponential is enough for rows and columns.
// Otherwise each row and each column has its own shift.

// Adds part exp(shift) to sum exp(top), and moment exp(shift) to the moment.
template <class T>
inline void fold(const Channel<T>& c, int64_t k, T shift, double part, double moment) {
  if (shift == T(-INFINITY)) return;  // nothing was added
  if (c.top[k] == T(-INFINITY)) {
    c.top[k] = shift, c.sum[k] = part;
    if (c.moment) c.moment[k] = moment;
    return;
  }
  const T top = shift > c.top[k] ? shift : c.top[k];
  const double old = c.top[k] == top ? 1.0 : std::exp(double(c.top[k]) - double(top));
  const double now = shift == top ? 1.0 : std::exp(double(shift) - double(top));
  c.sum[k] = c.sum[k] * old + part * now;
  if (c.moment) c.moment[k] = c.moment[k] * old + moment * now;
  c.top[k] = top;
}

// Scratch memory for one tile: logits or weights of the tile's size, and vectors over its columns.
template <class T>
struct TileScratch {
  T* z;        // m x ld
  T* w;        // m x ld
  T* columns;  // 3 x ld
  T* row;      // 4 x ld
};

template <class T>
struct Forward {
  const Problem<T>& problem;
  TileScratch<T> scratch;

  // `mirrored`: the tile above the diagonal also stands for the one below it, so every channel is
  // reduced along both axes into the same accumulators.
  void visit(const Tile<T>& t, bool mirrored) {
    const std::vector<Cover> covered = covers(problem, t);
    if (fused(t, covered, mirrored)) return;
    if (!mirrored && LoneSum<T, true, false>{problem}.visit(t, covered)) return;
    for (int64_t r = 0; r < t.m; ++r)
      score_row(problem, t.i0 + r, t.j0, t.n, t.s + r * t.ld, t.s + r * t.ld);
    for (size_t g = 0; g < problem.groups.size(); ++g) {
      const Group<T>& group = problem.groups[g];
      if (covered[g] == Cover::NONE) continue;
      const T* w = nullptr;
      if (weighted(group, covered[g])) {
        for (int64_t r = 0; r < t.m; ++r)
          weight_row(group, t.i0 + r, t.j0, t.n, t.s + r * t.ld, scratch.w + r * t.ld);
        w = scratch.w;
      }
      logs(static_cast<int>(g), t, w, mirrored);
      for (const Channel<T>& c : problem.channels) {
        if (c.group != static_cast<int>(g)) continue;
        if (c.kind == Kind::SUM) sum(c, t, w, mirrored);
        if (c.kind == Kind::MAX) {
          if (!c.column || mirrored) max_rows(c, t, w);
          if (c.column || mirrored) max_columns(c, t, w);
        }
      }
    }
  }

  struct ByAxis {
    std::vector<Ref<T>> rows, columns;
  };

  // The LSE channels with the group and the logits of `like`, by the axes along which a tile adds
  // to them.
  ByAxis by_axis(const Channel<T>& like, bool mirrored) const {
    ByAxis found;
    for (const Channel<T>& c : problem.channels) {
      if (c.group != like.group || c.kind != Kind::LSE || !c.same_logits(like)) continue;
      if (!c.column || mirrored) found.rows.push_back({&c});
      if (c.column || mirrored) found.columns.push_back({&c});
    }
    return found;
  }

  // The most common case: LSE channels with theta = 1 whose score bound serves as the shift, and
  // plain sums and counts. Takes one pass from products to sums, without storing scores.
  bool fused(const Tile<T>& t, const std::vector<Cover>& covered, bool mirrored) {
    if (!problem.bounded(kSpread<T>) || problem.gamma) return false;
    const Roles<T> found = roles(problem, covered, [](const Channel<T>&) { return true; });
    if (!found.fusable) return false;
    bool columns = false;
    for (const Channel<T>& c : problem.channels) columns |= c.column || mirrored;
    if (problem.b) {
      columns ? add_exp<true, true>(t, found, mirrored) : add_exp<true, false>(t, found, mirrored);
    } else {
      columns ? add_exp<false, true>(t, found, mirrored)
              : add_exp<false, false>(t, found, mirrored);
    }
    return true;
  }

  template <bool SCALED, bool COLUMNS>
  void add_exp(const Tile<T>& t, const Roles<T>& found, bool mirrored) {
    found.masked ? add_exp<SCALED, COLUMNS, true>(t, found, mirrored)
                 : add_exp<SCALED, COLUMNS, false>(t, found, mirrored);
  }

  template <bool SCALED, bool COLUMNS, bool MASKED>
  void add_exp(const Tile<T>& t, const Roles<T>& found, bool mirrored) {
    found.bounds ? add_exp<SCALED, COLUMNS, MASKED, true>(t, found, mirrored)
                 : add_exp<SCALED, COLUMNS, MASKED, false>(t, found, mirrored);
  }

  template <bool SCALED, bool COLUMNS, bool MASKED, bool BOUNDED>
  void add_exp(const Tile<T>& t, const Roles<T>& found, bool mirrored) {
    const T* b = SCALED ? problem.b + t.j0 : nullptr;
    T *exps = scratch.columns, *sums = exps + t.ld, *counts = sums + t.ld;
    T *kept = scratch.row, *taken = kept + t.ld;
    for (int64_t j = 0; COLUMNS && j < t.n; ++j) exps[j] = sums[j] = counts[j] = 0;
    for (int64_t r = 0; r < t.m; ++r) {
      const int64_t i = t.i0 + r;
      const T left = row_factor(problem, i), beta = problem.beta ? problem.beta[i] : T(0);
      if (MASKED) {
        mask_row(problem, found.logs, t, i, kept);
        mask_row(problem, found.sums, t, i, taken);
      }
      const T* dot = t.s + r * t.ld;
      const T most = BOUNDED ? found.bounds[i] : T(0);
      const T shift = most == most ? problem.bound : most;  // NaN reaches all exponentials
      T total = 0, sum = 0, count = 0;
#pragma omp simd reduction(+ : total, sum, count)
      for (int64_t j = 0; j < t.n; ++j) {
        const T s = (SCALED ? dot[j] * left * b[j] : dot[j] * left) + beta;
        T e = VecMath::exp_bounded(s - shift);
        if (BOUNDED) e = s > most ? T(0) : e;
        if (MASKED) {
          e = kept[j] == T(0) ? e : T(0);
          const T one = taken[j] == T(0) ? T(1) : T(0), v = taken[j] == T(0) ? s : T(0);
          sum += v, count += one;
          if (COLUMNS) sums[j] += v, counts[j] += one;
        }
        total += e;
        if (COLUMNS) exps[j] += e;
      }
      put(found, false, mirrored, i, total, sum, count);
    }
    for (int64_t j = 0; COLUMNS && j < t.n; ++j)
      put(found, true, mirrored, t.j0 + j, exps[j], sums[j], counts[j]);
  }

  // Adds the sums of one row or column of a fused tile to the channels along that axis.
  void put(const Roles<T>& found, bool column, bool mirrored, int64_t k, T exps, T sum, T count) {
    for (const Channel<T>& c : problem.channels) {
      if (c.column != column && !mirrored) continue;
      if (c.kind == Kind::LSE) {
        if (c.group == found.logs) fold(c, k, problem.bound, exps, 0.0);
      } else if (c.group == found.sums) {
        c.sum[k] += static_cast<Psi>(c.psi) == Psi::One ? count : c.sign * sum;
      }
    }
  }

  // ---- LSE and EXPECT -------------------------------------------------------------------------

  // All LSE and EXPECT channels of a group. Channels with the same logits share the exponentials.
  void logs(int g, const Tile<T>& t, const T* w, bool mirrored) {
    const std::vector<Channel<T>>& all = problem.channels;
    auto takes = [&](size_t k) {
      return all[k].group == g && (all[k].kind == Kind::LSE || all[k].kind == Kind::EXPECT);
    };
    for (size_t k = 0; k < all.size(); ++k) {
      if (!takes(k)) continue;
      bool first = true;
      for (size_t e = 0; e < k; ++e) first &= !(takes(e) && all[e].same_logits(all[k]));
      if (!first) continue;
      const T* z = logits(t, w, all[k]);
      T low = INFINITY, high = -INFINITY;
      spread(z, t, low, high);
      if (low > high) continue;
      for (size_t e = k; e < all.size(); ++e) {
        if (!takes(e) || !all[e].same_logits(all[k]) || all[e].kind != Kind::EXPECT) continue;
        if (!all[e].column || mirrored) own_rows(all[e], t, z);
        if (all[e].column || mirrored) own_columns(all[e], t, z);
      }
      plain(all[k], t, z, mirrored, low, high);
    }
  }

  // LSE channels only, the case of nearly every loss.
  void plain(const Channel<T>& like, const Tile<T>& t, const T* z, bool mirrored, T low, T high) {
    const auto [rows, columns] = by_axis(like, mirrored);
    if (rows.empty() && columns.empty()) return;
    if (!columns.empty() && !rows.empty() && high - low <= kSpread<T>) {
      shared(rows, columns, t, z, high);
      return;
    }
    for (const Ref<T>& c : rows) own_rows(*c, t, z);
    for (const Ref<T>& c : columns) own_columns(*c, t, z);
  }

  const T* logits(const Tile<T>& t, const T* w, const Channel<T>& c) {
    if (w == nullptr && c.direct()) return t.s;
    for (int64_t r = 0; r < t.m; ++r)
      logits_row(c, t.s + r * t.ld, w ? w + r * t.ld : nullptr, t.n, scratch.z + r * t.ld);
    return scratch.z;
  }

  // The range of a tile's logits that are not -inf; low > high if there are none. If a logit is
  // NaN, the range is infinite, so that each row and column finds the NaN itself.
  static void spread(const T* z, const Tile<T>& t, T& low, T& high) {
    const T none = -INFINITY;
    int nan = 0;
    for (int64_t r = 0; r < t.m; ++r) {
      const T* v = z + r * t.ld;
      T lo = low, hi = high;
#pragma omp simd reduction(min : lo) reduction(max : hi) reduction(| : nan)
      for (int64_t j = 0; j < t.n; ++j) {
        hi = v[j] > hi ? v[j] : hi;
        const T x = v[j] == none ? T(INFINITY) : v[j];
        lo = x < lo ? x : lo;
        nan |= v[j] != v[j];
      }
      low = lo, high = hi;
    }
    if (nan) low = none, high = INFINITY;
  }

  void shared(const std::vector<Ref<T>>& rows, const std::vector<Ref<T>>& columns, const Tile<T>& t,
              const T* z, T shift) {
    T* column = scratch.columns;
    for (int64_t j = 0; j < t.n; ++j) column[j] = 0;
    for (int64_t r = 0; r < t.m; ++r) {
      const T* v = z + r * t.ld;
      T total = 0;
#pragma omp simd reduction(+ : total)
      for (int64_t j = 0; j < t.n; ++j) {
        const T e = VecMath::exp(v[j] - shift);
        total += e;
        column[j] += e;
      }
      if (total != T(0))
        for (const Ref<T>& c : rows) fold(*c, t.i0 + r, shift, total, 0.0);
    }
    for (int64_t j = 0; j < t.n; ++j)
      if (column[j] != T(0))
        for (const Ref<T>& c : columns) fold(*c, t.j0 + j, shift, column[j], 0.0);
  }

  void own_rows(const Channel<T>& c, const Tile<T>& t, const T* z) {
    for (int64_t r = 0; r < t.m; ++r) {
      const T *v = z + r * t.ld, *s = t.s + r * t.ld;
      T top = -INFINITY;
#pragma omp simd reduction(max : top)
      for (int64_t j = 0; j < t.n; ++j) top = v[j] > top ? v[j] : top;
      const T shift = top == T(-INFINITY) ? T(0) : top;
      T total = 0, moment = 0;
      if (c.moment) {
#pragma omp simd reduction(+ : total, moment)
        for (int64_t j = 0; j < t.n; ++j) {
          const T e = VecMath::exp(v[j] - shift);
          total += e;
          moment += e == T(0) ? T(0) : e * s[j];
        }
      } else {
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < t.n; ++j) total += VecMath::exp(v[j] - shift);
      }
      if (total != T(0)) fold(c, t.i0 + r, shift, total, moment);
    }
  }

  void own_columns(const Channel<T>& c, const Tile<T>& t, const T* z) {
    T *top = scratch.columns, *total = top + t.ld, *moment = total + t.ld;
    for (int64_t j = 0; j < t.n; ++j) top[j] = -INFINITY, total[j] = moment[j] = 0;
    for (int64_t r = 0; r < t.m; ++r) {
      const T* v = z + r * t.ld;
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) top[j] = v[j] > top[j] ? v[j] : top[j];
    }
    for (int64_t j = 0; j < t.n; ++j) top[j] = top[j] == T(-INFINITY) ? T(0) : top[j];
    for (int64_t r = 0; r < t.m; ++r) {
      const T *v = z + r * t.ld, *s = t.s + r * t.ld;
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) {
        const T e = VecMath::exp(v[j] - top[j]);
        total[j] += e;
        moment[j] += e == T(0) ? T(0) : e * s[j];
      }
    }
    for (int64_t j = 0; j < t.n; ++j)
      if (total[j] != T(0)) fold(c, t.j0 + j, top[j], total[j], moment[j]);
  }

  // ---- SUM --------------------------------------------------------------------------------------

  template <Psi P>
  void sum_of(const Channel<T>& c, const Tile<T>& t, const T* w, bool mirrored) {
    const bool along_rows = !c.column || mirrored, along_columns = c.column || mirrored;
    for (int axis = 0; axis < 2; ++axis) {
      if (axis == 0 ? !along_rows : !along_columns) continue;
      T* column = scratch.columns;
      for (int64_t j = 0; j < t.n; ++j) column[j] = 0;
      for (int64_t r = 0; r < t.m; ++r) {
        const T* s = t.s + r * t.ld;
        T* u = scratch.row;
        if (axis == 0) {
          const T mu = c.shift ? c.shift[t.i0 + r] : T(0);
#pragma omp simd
          for (int64_t j = 0; j < t.n; ++j) u[j] = psi<P, T, VecMath>(c.sign * (s[j] - mu));
        } else {
          const T* shift = c.shift ? c.shift + t.j0 : nullptr;
#pragma omp simd
          for (int64_t j = 0; j < t.n; ++j) {
            const T mu = shift ? shift[j] : T(0);
            u[j] = psi<P, T, VecMath>(c.sign * (s[j] - mu));
          }
        }
        if (w) weigh_row(problem.groups[c.group], w + r * t.ld, t.n, u);
        if (axis == 0) {
          T total = 0;
#pragma omp simd reduction(+ : total)
          for (int64_t j = 0; j < t.n; ++j) total += u[j];
          c.sum[t.i0 + r] += total;
        } else {
#pragma omp simd
          for (int64_t j = 0; j < t.n; ++j) column[j] += u[j];
        }
      }
      if (axis == 1)
        for (int64_t j = 0; j < t.n; ++j) c.sum[t.j0 + j] += column[j];
    }
  }

  void sum(const Channel<T>& c, const Tile<T>& t, const T* w, bool mirrored) {
    switch (static_cast<Psi>(c.psi)) {
#define CL_CASE(P, name) \
  case Psi::P: return sum_of<Psi::P>(c, t, w, mirrored);
      CL_EACH_PSI(CL_CASE)
#undef CL_CASE
    }
  }

  // ---- MAX --------------------------------------------------------------------------------------

  // Whether value v at position k replaces the best one: it is larger, or equal and earlier, or
  // NaN.
  static bool beats(T v, int64_t k, T best, int64_t at) {
    if (v != v) return best == best;
    return v > best || (v == best && v != T(-INFINITY) && (k < at || at < 0));
  }

  void offer(const Channel<T>& c, int64_t slot, T v, int64_t k) {
    if (!beats(v, k, c.top[slot], c.index[slot])) return;
    c.top[slot] = v;
    c.index[slot] = v == v ? k : -1;
  }

  void max_rows(const Channel<T>& c, const Tile<T>& t, const T* w) {
    for (int64_t r = 0; r < t.m; ++r) {
      const T *s = t.s + r * t.ld, *log_weight = w ? w + r * t.ld : nullptr;
      T* v = scratch.row;
      T best = -INFINITY;
      int nan = 0;
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) v[j] = c.sign * s[j];
      if (log_weight)
#pragma omp simd
        for (int64_t j = 0; j < t.n; ++j)
          v[j] = log_weight[j] == T(-INFINITY) ? T(-INFINITY) : v[j];
#pragma omp simd reduction(max : best) reduction(| : nan)
      for (int64_t j = 0; j < t.n; ++j) {
        best = v[j] > best ? v[j] : best;
        nan |= v[j] != v[j];
      }
      if (!nan && !(best >= c.top[t.i0 + r])) continue;
      for (int64_t j = 0; j < t.n; ++j)
        if (nan ? v[j] != v[j] : v[j] == best) {
          offer(c, t.i0 + r, v[j], t.j0 + j);
          break;
        }
    }
  }

  void max_columns(const Channel<T>& c, const Tile<T>& t, const T* w) {
    for (int64_t r = 0; r < t.m; ++r) {
      const T *s = t.s + r * t.ld, *log_weight = w ? w + r * t.ld : nullptr;
      const T* top = c.top + t.j0;
      int any = 0;
#pragma omp simd reduction(| : any)
      for (int64_t j = 0; j < t.n; ++j) any |= !(c.sign * s[j] < top[j]);
      if (!any) continue;
      for (int64_t j = 0; j < t.n; ++j) {
        if (log_weight && log_weight[j] == T(-INFINITY)) continue;
        offer(c, t.j0 + j, c.sign * s[j], t.i0 + r);
      }
    }
  }
};
