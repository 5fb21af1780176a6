// Tiles and the schedule. Included once per instruction set.
//
// A job is a chunk of rows against a chunk of columns. No two jobs of one phase share a chunk of
// rows or a chunk of columns, so one thread at a time adds to each result, in a fixed order.
// Results are deterministic, and each thread needs a constant amount of scratch memory.

// ---- scratch of one thread ----------------------------------------------------------------------

// `P` computes the products: VectorProducts or AmxProducts.
template <class T, class P>
struct Workspace {
  int64_t block_rows = 0;  // rows that are packed at a time
  int64_t ld = 0;  // leading dimension of a tile; no power of two, since cache sets would collide
  T *tile = nullptr, *transposed = nullptr;
  T* kept = nullptr;  // a second tile, for jobs that visit one twice
  TileScratch<T> tile_scratch{};
  std::optional<P> products;
  Carver carver;

  // `depth`: how many features are packed at a time.
  Workspace(const Problem<T>& p, int64_t depth, bool twice = false)
      : carver([&](Carver& memory) { layout(p, depth, twice, memory); }) {}

 private:
  void layout(const Problem<T>& p, int64_t depth, bool twice, Carver& memory) {
    const int64_t m = p.x.rows, n = p.y.rows;
    const int64_t budget = (int64_t(1) << 20) / depth / P::TILE_N * P::TILE_N;
    block_rows = std::min(std::clamp(budget, P::TILE_N, 6 * P::TILE_N), m);
    // A transposed tile has up to TILE_M columns, which were rows, and no more than there are
    // columns.
    const int64_t rows = std::min(P::TILE_M, m), cols = std::min(P::TILE_N, n);
    const bool oriented = p.symmetric && !p.mirror;
    const int64_t high = P::whole_rows(rows);
    ld = round_up(P::whole_cols(cols), 64) + 16;
    const bool general = p.general();
    tile = memory.take<T>(high * ld);
    transposed = oriented ? memory.take<T>(high * ld) : nullptr;
    kept = twice ? memory.take<T>(high * ld) : nullptr;
    tile_scratch.z = general ? memory.take<T>(high * ld) : nullptr;
    tile_scratch.w = general ? memory.take<T>(high * ld) : nullptr;
    tile_scratch.columns = memory.take<T>(3 * ld);
    tile_scratch.row = memory.take<T>(4 * ld);
    products.emplace(p, memory, block_rows, cols, depth);
  }
};

// Copies an m x n tile.
template <class T>
inline void copy_tile(const T* from, int64_t from_ld, int64_t m, int64_t n, T* to, int64_t to_ld) {
  for (int64_t r = 0; r < m; ++r)
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) to[r * to_ld + j] = from[r * from_ld + j];
}

// ---- one job ------------------------------------------------------------------------------------

// What a job does with the scores of a tile.
enum class Visit { FORWARD, BACKWARD, BOTH };

template <class T, class P, Visit V>
struct Job {
  static constexpr bool BACKWARD = V != Visit::FORWARD;
  static constexpr Use kUse = BACKWARD ? Use::BOTH : Use::SCORES;

  const Problem<T>& problem;
  Workspace<T, P> work{problem, problem.x.cols, V == Visit::BOTH};
  typename P::Session session{};

  // Rows [r0, r1) x columns [c0, c1). `triangle`: both are the same chunk of a symmetric problem.
  // `strip`: some rows of a symmetric problem against all of its columns.
  void run(int64_t r0, int64_t r1, int64_t c0, int64_t c1, bool triangle, bool strip) {
    for (int64_t b0 = r0; b0 < r1; b0 += work.block_rows) {
      const int64_t rows = std::min(work.block_rows, r1 - b0);
      work.products->pack_rows(b0, rows, kUse);
      for (int64_t j0 = triangle ? b0 : c0; j0 < c1; j0 += P::TILE_N) {
        const int64_t n = std::min(P::TILE_N, c1 - j0);
        work.products->pack_columns(j0, n, kUse);
        for (int64_t i0 = b0; i0 < b0 + rows; i0 += P::TILE_M) {
          if (poll()) session.renew();
          const int64_t m = std::min(P::TILE_M, b0 + rows - i0);
          if (!triangle || i0 + m <= j0) {
            tile(b0, i0, m, j0, j0, n, problem.symmetric && !strip);
          } else {
            triangle_tile(b0, i0, m, j0, n);
          }
        }
      }
    }
  }

  // A tile that may cross the diagonal: the square on the diagonal, then what lies to its right.
  void triangle_tile(int64_t b0, int64_t i0, int64_t m, int64_t j0, int64_t n) {
    if (i0 >= j0 + n) return;  // below the diagonal: the mirror image of visited tiles
    tile(b0, i0, m, j0, i0, m, false);
    const int64_t right = i0 + P::TILE_M;
    if (right < j0 + n) tile(b0, i0, m, j0, right, j0 + n - right, true);
  }

  // Rows [i0, i0 + m) of the packed block at b0, columns [j, j + n) of the packed block at j0.
  // `above`: in a symmetric problem, this visit also covers the tile below the diagonal.
  void tile(int64_t b0, int64_t i0, int64_t m, int64_t j0, int64_t j, int64_t n, bool above) {
    const int64_t d = problem.x.cols;
    Tile<T> t{work.tile, work.ld, i0, m, j, n};
    work.products->scores(i0 - b0, m, j - j0, n, t.s, t.ld);
    // across the diagonal: H has both orientations, so one product gives the whole gradient of the
    // rows
    const bool whole = problem.symmetric && !above && problem.strips(BACKWARD);
    if (V != Visit::BOTH || above || whole || !at_once(t)) {
      if constexpr (V != Visit::BACKWARD) statistics(t, above);
      if constexpr (BACKWARD) visit<Backward<T>>(t, above || whole, whole ? T(0.5) : T(1));
    }
    if constexpr (BACKWARD) {
      T* dx = problem.sums.dx;
      T* dy = whole ? nullptr : problem.symmetric ? dx : problem.sums.dy;
      work.products->gradients(i0 - b0, m, j - j0, n, t.s, t.ld,
                               Into<T>{dx ? dx + i0 * d : nullptr},
                               Into<T>{dy ? dy + j * d : nullptr});
    }
  }

  bool at_once(const Tile<T>& t) const {
    return LoneSum<T, true, true>{problem}.visit(t, covers(problem, t));
  }

  // Overwrites the products, unless they are needed again.
  void statistics(const Tile<T>& t, bool mirrored) {
    if (V == Visit::BOTH) copy_tile(t.s, t.ld, t.m, t.n, work.kept, t.ld);
    visit<Forward<T>>(t, mirrored);
    if (V == Visit::BOTH) copy_tile(work.kept, t.ld, t.m, t.n, t.s, t.ld);
  }

  // `Pass`: Forward or Backward.
  template <class Pass, class... Part>
  void visit(const Tile<T>& t, bool mirrored, Part... part) {
    if (mirrored && !problem.mirror) return both_orientations<Pass>(t, part...);
    Pass{problem, work.tile_scratch}.visit(t, mirrored, part...);
  }

  // Visits both orientations one after the other, for scores or tests that are not symmetric. The
  // transposed tile is visited in parts, since a tile is wider than it is high.
  template <class Pass, class... Part>
  void both_orientations(const Tile<T>& t, Part... part) {
    Pass pass{problem, work.tile_scratch};
    T* other = work.transposed;
    for (int64_t first = 0; first < t.n; first += P::TILE_M) {
      const Tile<T> u{other, work.ld, t.j0 + first, std::min(P::TILE_M, t.n - first), t.i0, t.m};
      for (int64_t j = 0; j < u.m; ++j)
        for (int64_t r = 0; r < t.m; ++r) u.s[j * u.ld + r] = t.s[r * t.ld + first + j];
      const Tile<T> own{t.s + first, t.ld, t.i0, t.m, t.j0 + first, u.m};
      pass.visit(u, false, part...);
      pass.visit(own, false, part...);
      if (std::is_same_v<Pass, Backward<T>>)
        for (int64_t j = 0; j < u.m; ++j)
          for (int64_t r = 0; r < t.m; ++r) t.s[r * t.ld + first + j] += u.s[j * u.ld + r];
    }
  }
};

// ---- the schedule -------------------------------------------------------------------------------

// Where chunk k begins when n positions are cut into `parts` chunks, of whole tiles if there are
// enough.
inline int64_t chunk_start(int64_t n, int64_t parts, int64_t k, int64_t unit) {
  const int64_t units = (n + unit - 1) / unit;
  return std::min(n, units * k / parts * unit);
}

template <class T, class P, Visit V>
struct Schedule {
  const Problem<T>& problem;
  int64_t parts = 1, phase = 0, unit = 1;

  explicit Schedule(const Problem<T>& p) : problem(p) {}

  void job(int64_t row_chunk, int64_t col_chunk, bool all_columns) {
    const int64_t m = problem.x.rows, n = problem.y.rows;
    const int64_t chunks = problem.symmetric && !all_columns ? chunks_symmetric() : parts;
    const int64_t r0 = chunk_start(m, chunks, row_chunk, unit);
    const int64_t r1 = chunk_start(m, chunks, row_chunk + 1, unit);
    const int64_t c0 = all_columns ? 0 : chunk_start(n, chunks, col_chunk, unit);
    const int64_t c1 = all_columns ? n : chunk_start(n, chunks, col_chunk + 1, unit);
    if (r0 >= r1 || c0 >= c1) return;
    const bool strip = problem.symmetric && all_columns;
    const bool triangle = problem.symmetric && !strip && row_chunk == col_chunk;
    Job<T, P, V>{problem}.run(r0, r1, c0, c1, triangle, strip);
  }

  bool strips() const {
    return (V == Visit::BACKWARD || problem.strips(false)) &&
           (V == Visit::FORWARD || problem.strips(true));
  }

  int64_t chunks_symmetric() const { return parts == 1 ? 1 : 2 * parts; }

  static void run_rows(void* self, int64_t k) { static_cast<Schedule*>(self)->job(k, k, true); }
  // A Latin square: in each phase, every thread has a different chunk of columns.
  static void run_square(void* self, int64_t k) {
    Schedule* s = static_cast<Schedule*>(self);
    s->job(k, (k + s->phase) % s->parts, false);
  }
  static void run_diagonal(void* self, int64_t k) {
    Schedule* s = static_cast<Schedule*>(self);
    s->job(2 * k, 2 * k, false);
    if (s->parts > 1) s->job(2 * k + 1, 2 * k + 1, false);
  }
  // A round robin of 2 P chunks: every pair of chunks meets once in 2 P - 1 phases, P pairs at a
  // time.
  static void run_pairs(void* self, int64_t k) {
    Schedule* s = static_cast<Schedule*>(self);
    const int64_t last = 2 * s->parts - 1;
    int64_t a = k == 0 ? last : (s->phase + k) % last;
    int64_t b = k == 0 ? s->phase % last : (s->phase + last - k) % last;
    s->job(std::min(a, b), std::max(a, b), false);
  }

  void run(int threads, Parallel parallel) {
    const int64_t m = problem.x.rows, n = problem.y.rows;
    const double work = problem.work();
    const int64_t smaller = std::min(m, problem.columns_written() ? n : m);
    unit = P::kUnit;
    parts = std::max<int64_t>(1, std::min<int64_t>({threads, int64_t(work), smaller / unit}));
    if (parts * P::TILE_M * 8 <= smaller) unit = P::TILE_M;
    if (problem.symmetric && parts > 1 && strips() && work < 5.0 * parts * parts) {
      parallel(parts, run_rows, this);
    } else if (problem.symmetric) {
      parallel(parts, run_diagonal, this);
      for (phase = 0; parts > 1 && phase < 2 * parts - 1; ++phase) parallel(parts, run_pairs, this);
    } else if (parts == 1 || !problem.columns_written()) {
      parallel(parts, run_rows, this);
    } else {
      for (phase = 0; phase < parts; ++phase) parallel(parts, run_square, this);
    }
  }
};

template <class T, class P, Visit V>
void run_problem(const Problem<T>& problem, int threads, Parallel parallel) {
  if (problem.x.rows == 0 || problem.y.rows == 0) return;
  Schedule<T, P, V>(problem).run(threads, parallel);
}
