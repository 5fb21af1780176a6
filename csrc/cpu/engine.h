// Tiles, packing and the schedule. Included once per instruction set.
//
// A job is a chunk of rows against a chunk of columns. In one phase no two jobs share a chunk of
// rows or of columns, so results along both axes are accumulated in place, by one thread at a time
// and in a fixed order: deterministic, and scratch is a constant per thread.

// ---- packing ------------------------------------------------------------------------------------

inline float from_bf16(uint16_t v) { return __builtin_bit_cast(float, uint32_t(v) << 16); }

// Rounded to nearest even; NaN stays NaN.
inline uint16_t to_bf16(float v) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, v);
  if (v != v) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float from_f16(uint16_t v) {
  const uint32_t sign = uint32_t(v & 0x8000u) << 16, body = v & 0x7fffu;
  if (body >= 0x7c00u)
    return __builtin_bit_cast(float, sign | 0x7f800000u | ((body & 0x3ffu) << 13));
  // normal and subnormal alike: shift into place and correct the exponent's bias exactly
  const float f = __builtin_bit_cast(float, body << 13) * 0x1p112f;
  return __builtin_bit_cast(float, sign | __builtin_bit_cast(uint32_t, f));
}

inline float round_f16(float v) {
  const float x = std::fabs(v);
  if (!(x < 65520.0f)) return x == x ? std::copysign(INFINITY, v) : v;
  // one ulp of f16 at x, at least that of the subnormals
  uint32_t e = __builtin_bit_cast(uint32_t, x) & 0x7f800000u;
  e = e < 0x38800000u ? 0x38800000u : e;
  const float magic = __builtin_bit_cast(float, e + (13u << 23));
  return std::copysign((x + magic) - magic, v);
}

template <class T>
inline void load_row(const Matrix& x, int64_t i, T* out) {
  const int64_t d = x.cols, first = i * d;
  switch (x.element) {
    case Element::F64:
      for (int64_t k = 0; k < d; ++k) out[k] = T(static_cast<const double*>(x.data)[first + k]);
      break;
    case Element::F32:
      for (int64_t k = 0; k < d; ++k) out[k] = T(static_cast<const float*>(x.data)[first + k]);
      break;
    case Element::BF16:
      for (int64_t k = 0; k < d; ++k)
        out[k] = T(from_bf16(static_cast<const uint16_t*>(x.data)[first + k]));
      break;
    case Element::F16:
      for (int64_t k = 0; k < d; ++k)
        out[k] = T(from_f16(static_cast<const uint16_t*>(x.data)[first + k]));
      break;
  }
  if (x.rounded == x.element) return;
  if (x.rounded == Element::BF16)
    for (int64_t k = 0; k < d; ++k) out[k] = T(from_bf16(to_bf16(float(out[k]))));
  if (x.rounded == Element::F16)
    for (int64_t k = 0; k < d; ++k) out[k] = T(round_f16(float(out[k])));
}

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// ---- scratch of one thread ----------------------------------------------------------------------

template <class T>
struct Arena {
  static constexpr int NR = Gemm<T>::NR, MR = Gemm<T>::MR;
  static constexpr int64_t TILE_M = kTileRows, TILE_N = 2 * kTileRows;
  static_assert(TILE_M % NR == 0 && TILE_M % MR == 0, "tiles are whole micro-tiles");

  int64_t block_rows, depth;  // rows packed at a time; D up to a whole panel
  int64_t ld;                 // of a tile; off the powers of two, where cache sets collide
  T *x, *y, *y_t, *row, *tile, *transposed;
  TileScratch<T> scratch;
  void* memory = nullptr;

  // `general`: logits, weights and a transposed tile are needed, not only scores.
  Arena(const Problem<T>& p, bool general) {
    const int64_t d = p.x.cols;
    depth = round_up(d, NR);
    const int64_t budget = (int64_t(1) << 19) / depth / TILE_N * TILE_N;
    block_rows = budget < TILE_N ? TILE_N : budget > 4 * TILE_N ? 4 * TILE_N : budget;
    block_rows = std::min(block_rows, round_up(p.x.rows, MR));
    const int64_t cols = std::min(TILE_N, round_up(p.y.rows, NR));
    const int64_t wide =
        general && p.symmetric ? std::max(cols, std::min(TILE_M, round_up(p.x.rows, NR))) : cols;
    ld = wide + 16;
    const int64_t high =
        std::min(TILE_M, round_up(std::max(p.x.rows, p.symmetric ? p.y.rows : 0), MR));
    const int64_t tile_size = high * ld, tiles = general ? 4 : 1;
    const int64_t sizes[] = {round_up(block_rows, MR) * depth + MR * NR,
                             cols * depth,
                             cols * depth,
                             depth,
                             tiles * tile_size + MR,
                             7 * ld};
    int64_t total = 0;
    for (int64_t s : sizes) total += round_up(s, 64);
    memory = std::aligned_alloc(64, round_up(total * sizeof(T), 4096));
    T* next = static_cast<T*>(memory);
    auto take = [&](int k) {
      T* p0 = next;
      next += round_up(sizes[k], 64);
      return p0;
    };
    x = take(0), y = take(1), y_t = take(2), row = take(3), tile = take(4);
    transposed = general ? tile + tile_size : nullptr;
    T* vectors = take(5);
    scratch = {general ? tile + 2 * tile_size : nullptr, general ? tile + 3 * tile_size : nullptr,
               vectors, vectors + 3 * ld};
  }
  Arena(const Arena&) = delete;
  ~Arena() { std::free(memory); }

  // Rows in panels of NR features: [panel][row][NR], zero beyond D and in `spare` rows at the end.
  static void pack_panels(const Matrix& x, int64_t first, int64_t n, int64_t stride, T* row,
                          T* out) {
    const int64_t d = x.cols, panels = (d + NR - 1) / NR;
    for (int64_t k = d; k < panels * NR; ++k) row[k] = 0;
    for (int64_t i = 0; i < stride; ++i) {
      if (i < n) load_row(x, first + i, row);
      if (i == n)
        for (int64_t k = 0; k < panels * NR; ++k) row[k] = 0;
      for (int64_t q = 0; q < panels; ++q)
        __builtin_memcpy(out + (q * stride + i) * NR, row + q * NR, NR * sizeof(T));
    }
  }

  // Columns in panels of NR: [panel][feature][NR], from rows packed above.
  static void transpose_panels(const T* packed, int64_t stride, int64_t d, T* out) {
    for (int64_t p = 0; p < stride / NR; ++p)
      for (int64_t k = 0; k < d; ++k) {
        const T* from = packed + ((k / NR) * stride + p * NR) * NR + k % NR;
        T* to = out + (p * d + k) * NR;
        for (int c = 0; c < NR; ++c) to[c] = from[c * NR];
      }
  }
};

// ---- one job
// --------------------------------------------------------------------------------------

template <class T, bool BACKWARD>
struct Job {
  using A = Arena<T>;
  static constexpr int NR = A::NR;
  const Problem<T>& problem;
  A& arena;
  int64_t stride_x = 0, stride_y = 0;

  // Rows [r0, r1) x columns [c0, c1); `triangle`: both are the same chunk of a symmetric problem.
  void run(int64_t r0, int64_t r1, int64_t c0, int64_t c1, bool triangle) {
    for (int64_t b0 = r0; b0 < r1; b0 += arena.block_rows) {
      const int64_t rows = std::min(arena.block_rows, r1 - b0);
      stride_x = round_up(rows, A::MR);
      A::pack_panels(problem.x, b0, rows, stride_x, arena.row, arena.x);
      for (int64_t j0 = triangle ? b0 : c0; j0 < c1; j0 += A::TILE_N) {
        const int64_t n = std::min(A::TILE_N, c1 - j0);
        stride_y = round_up(n, NR);
        A::pack_panels(problem.y, j0, n, stride_y, arena.row, arena.y);
        A::transpose_panels(arena.y, stride_y, problem.x.cols, arena.y_t);
        for (int64_t i0 = b0; i0 < b0 + rows; i0 += A::TILE_M) {
          const int64_t m = std::min(A::TILE_M, b0 + rows - i0);
          if (!triangle || i0 + m <= j0) {
            tile(b0, i0, m, j0, j0, n, problem.symmetric);
          } else {
            triangle_tile(b0, i0, m, j0, n);
          }
        }
      }
    }
  }

  // A tile that may meet the diagonal: its square on it, and what lies to the right of that.
  void triangle_tile(int64_t b0, int64_t i0, int64_t m, int64_t j0, int64_t n) {
    if (i0 >= j0 + n) return;  // below: the mirror image of tiles that are visited
    tile(b0, i0, m, j0, i0, std::min(m, j0 + n - i0), false);
    const int64_t right = i0 + A::TILE_M;
    if (right < j0 + n) tile(b0, i0, m, j0, right, j0 + n - right, true);
  }

  // Rows [i0, i0 + m) of the packed block at b0, columns [j, j + n) of the packed block at j0.
  // `above`: in a symmetric problem, the tile below the diagonal is served with it.
  void tile(int64_t b0, int64_t i0, int64_t m, int64_t j0, int64_t j, int64_t n, bool above) {
    const int64_t d = problem.x.cols;
    const T* x = arena.x + (i0 - b0) * NR;
    Tile<T> t{arena.tile, arena.ld, i0, m, j, n};
    const Walk by_panel{NR, 1, NR, stride_x * NR};
    Gemm<T>::run(m, round_up(n, NR), d, x, by_panel, arena.y_t + (j - j0) * d, d * NR, t.s, t.ld,
                 false);
    if (above && !problem.mirror) {
      turned(t);
    } else {
      visit(t, above);
    }
    if (BACKWARD) products(t, x, arena.y + (j - j0) * NR);
  }

  void visit(const Tile<T>& t, bool mirrored) {
    if constexpr (BACKWARD) {
      Backward<T>{problem, arena.scratch}.visit(t, mirrored);
    } else {
      Forward<T>{problem, arena.scratch}.visit(t, mirrored);
    }
  }

  // Both orientations one after the other, for scores or tests that are not symmetric. The
  // transposed tile is visited in parts, since a tile is wider than it is high.
  void turned(const Tile<T>& t) {
    T* other = arena.transposed;
    for (int64_t part = 0; part < t.n; part += A::TILE_M) {
      const Tile<T> u{other, arena.ld, t.j0 + part, std::min(A::TILE_M, t.n - part), t.i0, t.m};
      for (int64_t j = 0; j < u.m; ++j)
        for (int64_t r = 0; r < t.m; ++r) u.s[j * u.ld + r] = t.s[r * t.ld + part + j];
      const Tile<T> own{t.s + part, t.ld, t.i0, t.m, t.j0 + part, u.m};
      visit(u, false);
      visit(own, false);
      if (BACKWARD)
        for (int64_t j = 0; j < u.m; ++j)
          for (int64_t r = 0; r < t.m; ++r) t.s[r * t.ld + part + j] += u.s[j * u.ld + r];
    }
  }

  // dX += H Y, dY += H^T X
  void products(const Tile<T>& t, const T* x, const T* y) {
    const int64_t d = problem.x.cols;
    const Sums<T>& out = problem.sums;
    if (out.dx)
      Gemm<T>::run(t.m, d, t.n, t.s, Walk{t.ld, 1, t.n, 0}, y, stride_y * NR, out.dx + t.i0 * d, d,
                   true);
    T* dy = problem.symmetric ? out.dx : out.dy;
    if (dy)
      Gemm<T>::run(t.n, d, t.m, t.s, Walk{1, t.ld, t.m, 0}, x, stride_x * NR, dy + t.j0 * d, d,
                   true);
  }
};

// ---- the schedule
// -----------------------------------------------------------------------------------

// Chunk k of n positions in `parts` chunks, whole tiles where there are enough of them.
inline int64_t chunk_start(int64_t n, int64_t parts, int64_t k, int64_t unit) {
  const int64_t units = (n + unit - 1) / unit;
  return std::min(n, units * k / parts * unit);
}

template <class T, bool BACKWARD>
struct Schedule {
  const Problem<T>& problem;
  std::vector<std::unique_ptr<Arena<T>>> arenas;
  int64_t parts = 1, phase = 0, unit = 1;

  explicit Schedule(const Problem<T>& p) : problem(p) {}

  void job(int64_t thread, int64_t row_chunk, int64_t col_chunk, bool all_columns) {
    const int64_t m = problem.x.rows, n = problem.y.rows;
    const int64_t chunks = problem.symmetric ? chunks_symmetric() : parts;
    const int64_t r0 = chunk_start(m, chunks, row_chunk, unit);
    const int64_t r1 = chunk_start(m, chunks, row_chunk + 1, unit);
    const int64_t c0 = all_columns ? 0 : chunk_start(n, chunks, col_chunk, unit);
    const int64_t c1 = all_columns ? n : chunk_start(n, chunks, col_chunk + 1, unit);
    if (r0 >= r1 || c0 >= c1) return;
    Job<T, BACKWARD>{problem, *arenas[thread]}.run(r0, r1, c0, c1,
                                                   problem.symmetric && row_chunk == col_chunk);
  }

  int64_t chunks_symmetric() const { return parts == 1 ? 1 : 2 * parts; }

  static void run_rows(void* self, int64_t k) { static_cast<Schedule*>(self)->job(k, k, k, true); }
  // A Latin square: in every phase each thread has another chunk of columns.
  static void run_square(void* self, int64_t k) {
    Schedule* s = static_cast<Schedule*>(self);
    s->job(k, k, (k + s->phase) % s->parts, false);
  }
  static void run_diagonal(void* self, int64_t k) {
    Schedule* s = static_cast<Schedule*>(self);
    s->job(k, 2 * k, 2 * k, false);
    if (s->parts > 1) s->job(k, 2 * k + 1, 2 * k + 1, false);
  }
  // A round robin of 2 P chunks: every pair meets once in 2 P - 1 phases, P pairs at a time.
  static void run_pairs(void* self, int64_t k) {
    Schedule* s = static_cast<Schedule*>(self);
    const int64_t last = 2 * s->parts - 1;
    int64_t a = k == 0 ? last : (s->phase + k) % last;
    int64_t b = k == 0 ? s->phase % last : (s->phase + last - k) % last;
    s->job(k, std::min(a, b), std::max(a, b), false);
  }

  void run(int threads, Parallel parallel) {
    const int64_t m = problem.x.rows, n = problem.y.rows;
    const double work = double(m) * double(n) * (double(problem.x.cols) + 32) / 4e5;
    const int64_t smaller = std::min(m, problem.columns_written() ? n : m);
    unit = Arena<T>::MR * 4;
    parts = std::max<int64_t>(1, std::min<int64_t>({threads, int64_t(work), smaller / unit}));
    if (parts * unit * 8 < smaller) unit = Arena<T>::TILE_M;
    bool general = problem.symmetric && !problem.mirror;
    for (const Group<T>& g : problem.groups) general |= !g.tests.empty() || !g.terms.empty();
    for (const Channel<T>& c : problem.channels) general |= c.theta != T(1);
    for (int64_t k = 0; k < parts; ++k) arenas.emplace_back(new Arena<T>(problem, general));
    if (problem.symmetric) {
      parallel(parts, run_diagonal, this);
      for (phase = 0; parts > 1 && phase < 2 * parts - 1; ++phase) parallel(parts, run_pairs, this);
    } else if (parts == 1 || !problem.columns_written()) {
      parallel(parts, run_rows, this);
    } else {
      for (phase = 0; phase < parts; ++phase) parallel(parts, run_square, this);
    }
  }
};

template <class T, bool BACKWARD>
void run_problem(const Problem<T>& problem, int threads, Parallel parallel) {
  if (problem.x.rows == 0 || problem.y.rows == 0) return;
  Schedule<T, BACKWARD>(problem).run(threads, parallel);
}

// ---- cosines
// ----------------------------------------------------------------------------------------

constexpr double kEps = 1e-12;  // torch.nn.functional.normalize's

// Calls f(i, x_i) for every row, in chunks on several threads where that pays.
template <class T, class F>
void each_row(const Matrix& x, int threads, Parallel parallel, const F& f) {
  struct Context {
    const Matrix& x;
    const F& f;
    int64_t parts;
  } context{x, f, std::max<int64_t>(1, std::min<int64_t>(threads, x.rows * x.cols / 65536))};
  auto chunk = [](void* self, int64_t k) {
    const Context& c = *static_cast<Context*>(self);
    std::unique_ptr<T[]> row(new T[c.x.cols]);
    for (int64_t i = c.x.rows * k / c.parts; i < c.x.rows * (k + 1) / c.parts; ++i) {
      load_row(c.x, i, row.get());
      c.f(i, row.get());
    }
  };
  parallel(context.parts, chunk, &context);
}

template <class T>
inline T inner(const T* a, const T* b, int64_t n) {
  T total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t k = 0; k < n; ++k) total += a[k] * b[k];
  return total;
}

template <class T>
void inverse_norms(const Matrix& x, T* out, int threads, Parallel parallel) {
  each_row<T>(x, threads, parallel, [&](int64_t i, const T* row) {
    const T norm = std::sqrt(inner(row, row, x.cols));
    out[i] = norm == T(0) ? T(0) : T(1) / (norm < T(kEps) ? T(kEps) : norm);
  });
}

template <class T>
void remove_radial(const Matrix& x, const T* r, T* grad, int threads, Parallel parallel) {
  each_row<T>(x, threads, parallel, [&](int64_t i, const T* row) {
    if (r[i] >= T(1 / kEps)) return;
    T* g = grad + i * x.cols;
    const T radial = inner(row, g, x.cols) * r[i] * r[i];
#pragma omp simd
    for (int64_t k = 0; k < x.cols; ++k) g[k] -= radial * row[k];
  });
}

template <class T>
constexpr Routines<T> routines() {
  return {run_problem<T, false>, run_problem<T, true>, inverse_norms<T>, remove_radial<T>};
}
