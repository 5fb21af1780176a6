// The scores of columns that each row chooses for itself (`index`), and their gradients
//
//   dx_i += h_ik y_j,   dy_j += h_ik x_i,   h_ik = scale a_i b_j g_ik,   j = index_ik.
//
// Threads share the rows; for sums over columns they share the columns, so that each column is
// summed by one thread, in the order of the rows. Included once per instruction set.

// The rows of x or y as the products read them.
template <class T>
class Rows {
 public:
  Rows(const Matrix& x, const T* inverse_norm, T* buffer)
      : x_(x), norm_(inverse_norm), whole_(as_is<T>(x)), buffer_(buffer) {}

  const T* raw(int64_t i) const {
    if (whole_) return whole_ + i * x_.cols;
    load_row(x_, i, buffer_);
    return buffer_;
  }
  T norm(int64_t i) const { return norm_ ? norm_[i] : T(1); }

 private:
  const Matrix& x_;
  const T *norm_, *whole_;
  T* buffer_;
};

template <class T>
struct Gather {
  const Problem<T>& problem;
  const Places<T>& places;
  static constexpr int64_t kPolled = 256;  // entries between two checks for signals
  int64_t parts = 1;
  // The entries of `index`, sorted by column: those of column j are order[starts[j]] ...
  // order[starts[j + 1] - 1].
  int64_t *starts = nullptr, *order = nullptr;

  int64_t m() const { return problem.x.rows; }
  int64_t n() const { return problem.y.rows; }
  bool exists(int64_t j) const { return j >= 0 && j < n(); }

  void share(int threads) {
    const double work = double(m()) * double(places.k) * (double(problem.x.cols) + 32) / 1e5;
    parts = std::clamp<int64_t>(static_cast<int64_t>(work), 1, threads);
  }

  // Calls f(rows of x, rows of y, first, last) for one part of `length` rows or columns.
  template <class F>
  void over(int64_t part, int64_t length, const F& f) const {
    T *xi = nullptr, *yj = nullptr;
    const Carver carver([&](Carver& memory) {
      for (T** row : {&xi, &yj}) *row = memory.take<T>(problem.x.cols);
    });
    const Rows<T> x(problem.x, problem.x_norm, xi), y(problem.y, problem.y_norm, yj);
    f(x, y, length * part / parts, length * (part + 1) / parts);
  }

  T right(int64_t j) const { return problem.b ? problem.b[j] : T(1); }

  static T dot(const Rows<T>& x, int64_t i, const T* xi, const Rows<T>& y, int64_t j, const T* yj,
               int64_t d) {
    return static_cast<T>(inner(xi, yj, d) * double(x.norm(i)) * double(y.norm(j)));
  }

  static void scores_of(void* self, int64_t part) {
    const Gather& g = *static_cast<Gather*>(self);
    const Problem<T>& p = g.problem;
    g.over(part, g.m(), [&](const Rows<T>& x, const Rows<T>& y, int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const T* xi = x.raw(i);
        const T left = row_factor(p, i), beta = p.beta ? p.beta[i] : T(0);
        for (int64_t e = i * g.places.k; e < (i + 1) * g.places.k; ++e) {
          if (e % kPolled == 0) poll();
          const int64_t j = g.places.index[e];
          if (!g.exists(j)) {
            g.places.scores[e] = -INFINITY;
            continue;
          }
          const T s = dot(x, i, xi, y, j, y.raw(j), p.x.cols) * left * g.right(j);
          g.places.scores[e] = s + (p.gamma ? p.gamma[j] : T(0)) + beta;
        }
      }
    });
  }

  static void gradients_of_rows(void* self, int64_t part) {
    const Gather& g = *static_cast<Gather*>(self);
    const Problem<T>& p = g.problem;
    const Sums<T>& sums = p.sums;
    g.over(part, g.m(), [&](const Rows<T>& x, const Rows<T>& y, int64_t first, int64_t last) {
      const int64_t d = p.x.cols;
      for (int64_t i = first; i < last; ++i) {
        const T* xi = x.raw(i);
        for (int64_t e = i * g.places.k; e < (i + 1) * g.places.k; ++e) {
          if (e % kPolled == 0) poll();
          const int64_t j = g.places.index[e];
          if (!g.exists(j)) continue;
          const T grad = g.places.grad[e], b = g.right(j);
          const T* yj = y.raw(j);
          if (sums.row_bias) sums.row_bias[i] += grad;
          if (sums.row_dot) sums.row_dot[i] += grad * b * dot(x, i, xi, y, j, yj, d);
          if (sums.dx) add(sums.dx + i * d, grad * row_factor(p, i) * b * y.norm(j), yj, d);
        }
      }
    });
  }

  static void gradients_of_columns(void* self, int64_t part) {
    const Gather& g = *static_cast<Gather*>(self);
    const Problem<T>& p = g.problem;
    T* dy = p.symmetric ? p.sums.dx : p.sums.dy;
    g.over(part, g.n(), [&](const Rows<T>& x, const Rows<T>& y, int64_t first, int64_t last) {
      const int64_t d = p.x.cols;
      for (int64_t j = first; j < last; ++j) {
        if (g.starts[j] == g.starts[j + 1]) continue;
        const T* yj = y.raw(j);
        for (int64_t at = g.starts[j]; at < g.starts[j + 1]; ++at) {
          if (at % kPolled == 0) poll();
          const int64_t e = g.order[at], i = e / g.places.k;
          const T grad = g.places.grad[e], a = p.a ? p.a[i] : T(1);
          const T* xi = x.raw(i);
          if (p.sums.col_bias) p.sums.col_bias[j] += grad;
          if (p.sums.col_dot) p.sums.col_dot[j] += grad * a * dot(x, i, xi, y, j, yj, d);
          if (dy) add(dy + j * d, grad * row_factor(p, i) * g.right(j) * x.norm(i), xi, d);
        }
      }
    });
  }

  static void add(T* sum, T factor, const T* row, int64_t d) {
#pragma omp simd
    for (int64_t k = 0; k < d; ++k) sum[k] += factor * row[k];
  }

  // A counting sort: the entries of one column keep their order.
  void sort_by_column() {
    const int64_t entries = m() * places.k;
    for (int64_t e = 0; e < entries; ++e)
      if (exists(places.index[e])) ++starts[places.index[e] + 1];
    for (int64_t j = 0; j < n(); ++j) starts[j + 1] += starts[j];
    for (int64_t e = 0; e < entries; ++e)
      if (exists(places.index[e])) order[starts[places.index[e]]++] = e;
    for (int64_t j = n(); j > 0; --j) starts[j] = starts[j - 1];
    starts[0] = 0;
  }

  bool columns_wanted() const {
    const Sums<T>& s = problem.sums;
    return s.dy || (problem.symmetric && s.dx) || s.col_bias || s.col_dot;
  }

  void backward(int threads, Parallel parallel) {
    share(threads);
    const Sums<T>& s = problem.sums;
    if (s.dx || s.row_bias || s.row_dot) parallel(parts, gradients_of_rows, this);
    if (!columns_wanted()) return;
    const Zeros<int64_t> sorted(n() + 1 + m() * places.k);
    starts = sorted.data(), order = starts + n() + 1;
    sort_by_column();
    parallel(parts, gradients_of_columns, this);
  }
};

template <class T>
void gather(const Problem<T>& problem, const Places<T>& places, int threads, Parallel parallel) {
  Gather<T> g{problem, places};
  g.share(threads);
  parallel(g.parts, Gather<T>::scores_of, &g);
}

template <class T>
void gather_backward(const Problem<T>& problem, const Places<T>& places, int threads,
                     Parallel parallel) {
  Gather<T>{problem, places}.backward(threads, parallel);
}
