// A strip of rows against a chunk of columns, twice: the first visit adds to the statistics and
// keeps the products, the second turns the kept products into gradients. Included once per
// instruction set.

template <class T, class P, bool BACKWARD>
struct StripJob {
  const Problem<T>& problem;
  const Strip<T>& strip;
  Workspace<T, P> work{problem};
  typename P::Session session{};

  void run() {
    for (int64_t b0 = strip.r0; b0 < strip.r1; b0 += work.block_rows) {
      const int64_t rows = std::min(work.block_rows, strip.r1 - b0);
      work.products->pack_rows(b0, rows);
      for (int64_t j0 = strip.c0; j0 < strip.c1; j0 += P::TILE_N) {
        const int64_t n = std::min(P::TILE_N, strip.c1 - j0);
        work.products->pack_columns(j0, n);
        for (int64_t i0 = b0; i0 < b0 + rows; i0 += P::TILE_M) {
          poll();
          tile(b0, Tile<T>{work.tile, work.ld, i0, std::min(P::TILE_M, b0 + rows - i0), j0, n});
        }
      }
    }
  }

  void tile(int64_t b0, const Tile<T>& t) {
    // tiles are kept one after the other, without padding
    T* kept = strip.kept + (t.i0 - strip.r0) * (strip.c1 - strip.c0) + (t.j0 - strip.c0) * t.m;
    const size_t row = static_cast<size_t>(t.n) * sizeof(T);
    if constexpr (!BACKWARD) {
      work.products->scores(t.i0 - b0, t.m, 0, t.n, t.s, t.ld);
      for (int64_t r = 0; r < t.m; ++r) std::memcpy(kept + r * t.n, t.s + r * t.ld, row);
      Forward<T>{problem, work.tile_scratch}.visit(t, false);
    } else {
      for (int64_t r = 0; r < t.m; ++r) std::memcpy(t.s + r * t.ld, kept + r * t.n, row);
      Backward<T>{problem, work.tile_scratch}.visit(t, false, T(1));
      const int64_t d = problem.x.cols;
      T* dx = problem.sums.dx;
      T* dy = problem.symmetric ? strip.dx : problem.sums.dy;
      work.products->gradients(t.i0 - b0, t.m, 0, t.n, t.s, t.ld, dx ? dx + t.i0 * d : nullptr,
                               dy ? dy + t.j0 * d : nullptr);
    }
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
