// Norms, and the step from gradients of unit vectors to gradients of rows. Included once per
// instruction set.

constexpr double kEps = 1e-12;  // the eps of torch.nn.functional.normalize

// Calls f(i, x_i) for every row, on several threads if there is enough work.
template <class T, class F>
void each_row(const Matrix& x, int threads, Parallel parallel, const F& f) {
  struct Context {
    const Matrix& x;
    const F& f;
    int64_t parts;
  } context{x, f, std::max<int64_t>(1, std::min<int64_t>(threads, x.rows * x.cols / 16384))};
  auto chunk = [](void* self, int64_t k) {
    const Context& c = *static_cast<Context*>(self);
    T* loaded = nullptr;
    const Carver carver([&](Carver& memory) { loaded = memory.take<T>(c.x.cols); });
    const T* whole = as_is<T>(c.x);
    for (int64_t i = c.x.rows * k / c.parts; i < c.x.rows * (k + 1) / c.parts; ++i) {
      if (!whole) load_row(c.x, i, loaded);
      c.f(i, whole ? whole + i * c.x.cols : loaded);
    }
  };
  parallel(context.parts, chunk, &context);
}

// <factor a, b> in double precision, with enough partial sums to keep the multipliers busy.
template <class T>
inline double inner(const T* a, const T* b, int64_t n, double factor = 1) {
  constexpr int64_t kSums = kVectorBytes / 2;
  double part[kSums] = {}, total = 0;
  int64_t k = 0;
  for (; k + kSums <= n; k += kSums)
#pragma omp simd
    for (int64_t p = 0; p < kSums; ++p) part[p] += double(a[k + p]) * factor * double(b[k + p]);
  for (; k < n; ++k) total += double(a[k]) * factor * double(b[k]);
#pragma omp simd reduction(+ : total)
  for (int64_t p = 0; p < kSums; ++p) total += part[p];
  return total;
}

// x|. Squares of doubles may overflow or underflow: such a row is scaled by its largest element.
template <class T>
inline double length(const T* row, int64_t n) {
  const double squared = inner(row, row, n);
  if (sizeof(T) == 4 || (squared > 1e-200 && squared < INFINITY) || squared != squared)
    return std::sqrt(squared);
  double largest = 0, sum = 0;
  for (int64_t k = 0; k < n; ++k) {
    const double size = row[k] < 0 ? -row[k] : row[k];
    largest = size > largest ? size : largest;
  }
  if (largest == 0 || largest == INFINITY) return largest;
  for (int64_t k = 0; k < n; ++k) {
    const double part = row[k] / largest;
    sum += part * part;
  }
  return largest * std::sqrt(sum);
}

template <class T>
void inverse_norms(const Matrix& x, T* out, int threads, Parallel parallel) {
  each_row<T>(x, threads, parallel, [&](int64_t i, const T* row) {
    const double norm = length(row, x.cols);
    out[i] = static_cast<T>(norm == 0 ? 0 : 1 / (norm < kEps ? kEps : norm));
  });
}

// With u = r x, turns a gradient g of u into r (g - u <u, g>). If g is already multiplied by r, the
// outer r is left out. Where the norm is below eps, r is a constant.
template <class T>
void remove_radial(const Matrix& x, const T* r, bool multiplied, T* grad, int threads,
                   Parallel parallel) {
  each_row<T>(x, threads, parallel, [&](int64_t i, const T* row) {
    T* g = grad + i * x.cols;
    const bool constant = r[i] == T(0) || r[i] >= T(1 / kEps);
    const T unit = r[i], outer = multiplied ? T(1) : unit;
    const T radial = constant ? T(0) : static_cast<T>(inner(row, g, x.cols, double(unit)));
#pragma omp simd
    for (int64_t k = 0; k < x.cols; ++k) g[k] = outer * (g[k] - radial * (unit * row[k]));
  });
}
