// A strip of rows against a chunk of columns, twice: the first visit adds to the statistics and
// keeps the products, the second turns the kept products into gradients. Long rows are multiplied
// some features at a time, and what is kept is added up, so that operands stay in the cache.
// Included once per instruction set.

template <class T, class P, bool BACKWARD>
struct StripJob {
  static constexpr Use kUse = BACKWARD ? Use::GRADIENTS : Use::SCORES;

  const Problem<T>& problem;
  const Strip<T>& strip;
  const int64_t depth = std::min(problem.x.cols, P::kDepth);
  Workspace<T, P> work{problem, depth};
  typename P::Session session{};

  void run() {
    const int64_t d = problem.x.cols;
    for (int64_t f = 0; f < d; f += depth) {
      work.products->select(f, std::min(depth, d - f));
      run(f == 0, f + depth >= d);
    }
  }

  // For the first, or the last, of the features.
  void run(bool first, bool last) {
    for (int64_t b0 = strip.r0; b0 < strip.r1; b0 += work.block_rows) {
      const int64_t rows = std::min(work.block_rows, strip.r1 - b0);
      work.products->pack_rows(b0, rows, kUse);
      for (int64_t j0 = strip.c0; j0 < strip.c1; j0 += P::TILE_N) {
        const int64_t n = std::min(P::TILE_N, strip.c1 - j0);
        work.products->pack_columns(j0, n, kUse);
        for (int64_t i0 = b0; i0 < b0 + rows; i0 += P::TILE_M) {
          if (poll()) session.renew();
          const int64_t m = std::min(P::TILE_M, b0 + rows - i0);
          tile(b0, Tile<T>{work.tile, work.ld, i0, m, j0, n}, first, last);
        }
      }
    }
  }

  void tile(int64_t b0, const Tile<T>& t, bool first, bool last) {
    // tiles are kept one after the other, without padding
    T* kept = strip.kept + (t.i0 - strip.r0) * (strip.c1 - strip.c0) + (t.j0 - strip.c0) * t.m;
    if constexpr (!BACKWARD) {
      work.products->scores(t.i0 - b0, t.m, 0, t.n, t.s, t.ld);
      if (!first) add(kept, t);
      copy_tile(t.s, t.ld, t.m, t.n, kept, t.n);
      if (last) Forward<T>{problem, work.tile_scratch}.visit(t, false);
    } else if (t.m == P::TILE_M && t.n == P::TILE_N) {  // whole tiles have no padding to write to
      gradients(b0, Tile<T>{kept, t.n, t.i0, t.m, t.j0, t.n}, first);
    } else {
      copy_tile(kept, t.n, t.m, t.n, t.s, t.ld);
      gradients(b0, t, first);
      if (first && !last) copy_tile(t.s, t.ld, t.m, t.n, kept, t.n);
    }
  }

  static void add(const T* kept, const Tile<T>& t) {
    for (int64_t r = 0; r < t.m; ++r)
#pragma omp simd
      for (int64_t j = 0; j < t.n; ++j) t.s[r * t.ld + j] += kept[r * t.n + j];
  }

  // `first`: the tile holds products, which become gradients of scores. All rows of a symmetric
  // problem: H has both orientations, so one product gives the whole gradient.
  void gradients(int64_t b0, const Tile<T>& t, bool first) {
    const int64_t d = problem.x.cols;
    const bool whole = strip.r1 - strip.r0 == problem.x.rows && problem.strips(true);
    if (first) Backward<T>{problem, work.tile_scratch}.visit(t, whole, whole ? T(0.5) : T(1));
    T* dx = problem.sums.dx;
    T* dy = whole ? nullptr : problem.symmetric ? strip.dx : problem.sums.dy;
    // the first tile of a row, or of a column, overwrites what is there, unless rows are columns
    const Into<T> rows{dx ? dx + t.i0 * d : nullptr, problem.symmetric || t.j0 != strip.c0};
    const Into<T> columns{dy ? dy + t.j0 * d : nullptr, problem.symmetric || t.i0 != 0};
    work.products->gradients(t.i0 - b0, t.m, 0, t.n, t.s, t.ld, rows, columns);
  }
};

template <class T, class P, bool BACKWARD>
void run_strip(const Problem<T>& problem, const Strip<T>& strip) {
  StripJob<T, P, BACKWARD>{problem, strip}.run();
}

// Adds the statistics of rows [r0, r1) that one chunk of columns has found to those of all.
template <class T>
void merge_rows(const Problem<T>& all, const Problem<T>& chunk, int64_t r0, int64_t r1) {
  Forward<T> forward{all, {}};
  for (size_t k = 0; k < all.channels.size(); ++k) {
    const Channel<T>&to = all.channels[k], &from = chunk.channels[k];
    for (int64_t i = r0; !to.column && i < r1; ++i) {
      if (to.kind == Kind::SUM) to.sum[i] += from.sum[i];
      if (to.kind == Kind::MAX) forward.offer(to, i, from.top[i], from.index[i]);
      if (to.kind == Kind::LSE || to.kind == Kind::EXPECT)
        fold(to, i, from.top[i], from.sum[i], from.moment ? from.moment[i] : 0.0);
    }
  }
}
