// The k best columns of every row. Included once per instruction set.
//
// A row keeps a list of candidates and the key that a further one has to exceed, its floor. A list
// that is full is cut to the k best, which raises the floor; a vector compare rejects nearly all
// of a tile's row. Columns come in ascending order, so that of equal keys the first one stays.

template <class T>
struct Candidate {
  T key;
  uint32_t column;  // from the first one of the job on
};

template <class T>
struct Before {
  bool operator()(const Candidate<T>& a, const Candidate<T>& b) const {
    return a.key > b.key || (a.key == b.key && a.column < b.column);
  }
};

// The lists of some rows.
template <class T>
struct Shortlists {
  int64_t k, capacity;
  Candidate<T>* all;
  T* floors;
  int64_t* sizes;

  void clear(int64_t rows) {
    for (int64_t r = 0; r < rows; ++r) floors[r] = -INFINITY, sizes[r] = 0;
  }

  Candidate<T>* of(int64_t r) const { return all + r * capacity; }

  // Keys of row r at columns `first` and on.
  void offer(int64_t r, const T* keys, int64_t n, uint32_t first) {
    constexpr int64_t kChunk = 32;
    T floor = floors[r];
    int64_t size = sizes[r];
    for (int64_t c = 0; c < n; c += kChunk) {
      const int64_t end = n - c < kChunk ? n : c + kChunk;
      int any = 0;
#pragma omp simd reduction(| : any)
      for (int64_t j = c; j < end; ++j) any |= keys[j] > floor;
      if (!any) continue;
      for (int64_t j = c; j < end; ++j) {
        if (!(keys[j] > floor)) continue;
        of(r)[size++] = {keys[j], first + static_cast<uint32_t>(j)};
        if (size < capacity) continue;
        size = cut(r, size);
        floor = of(r)[k - 1].key;
      }
    }
    floors[r] = floor;
    sizes[r] = size;
  }

  // Puts the k best in front, the last of them last; returns how many remain.
  int64_t cut(int64_t r, int64_t size) const {
    if (size <= k) return size;
    std::nth_element(of(r), of(r) + (k - 1), of(r) + size, Before<T>());
    return k;
  }

  // The best ones in order; returns how many there are.
  int64_t finish(int64_t r) const {
    const int64_t size = cut(r, sizes[r]);
    std::sort(of(r), of(r) + size, Before<T>());
    return size;
  }
};

template <class T>
inline int64_t list_capacity(int64_t k) {
  return k + std::max<int64_t>(k, 64);
}

// Scratch of one thread, and one job: rows [r0, r1) against columns [c0, c1).
template <class T, class P>
struct TopKJob {
  const Problem<T>& problem;
  const Selection<T>& wanted;
  const int64_t k;  // columns there are may be fewer than are wanted
  int64_t block_rows = 0, ld = 0;
  T *tile = nullptr, *weights = nullptr;
  float* noise = nullptr;
  Shortlists<T> lists{};
  std::optional<P> products;
  typename P::Session session{};

  TopKJob(const Problem<T>& p, const Selection<T>& s, int64_t rows)
      : problem(p), wanted(s), k(std::min(s.k, p.y.rows)) {
    const int64_t bytes = layout(Carver(), rows);
    layout(Carver(scratch(bytes)), rows);
  }

  int64_t layout(Carver memory, int64_t rows) {
    constexpr int64_t kListBytes = int64_t(32) << 20;
    lists.k = k, lists.capacity = list_capacity<T>(k);
    const int64_t listed = kListBytes / (lists.capacity * int64_t(sizeof(Candidate<T>)));
    const int64_t packed = (int64_t(1) << 20) / problem.x.cols / P::TILE_M * P::TILE_M;
    block_rows = std::min({std::clamp(packed, P::TILE_M, 12 * P::TILE_M),
                           std::max<int64_t>(listed / P::kUnit * P::kUnit, P::kUnit), rows});
    const int64_t cols = std::min(P::TILE_N, problem.y.rows);
    ld = round_up(cols, 64) + 16;
    tile = memory.take<T>(round_up(std::min(P::TILE_M, block_rows), 32) * ld);
    weights = memory.take<T>(ld);
    noise = memory.take<float>(ld);
    lists.floors = memory.take<T>(block_rows);
    lists.sizes = memory.take<int64_t>(block_rows);
    lists.all = memory.take<Candidate<T>>(block_rows * lists.capacity);
    products.emplace(problem, memory, block_rows, cols);
    return memory.used();
  }

  // `emit(i, candidates, count)` takes every row's result.
  template <class Emit>
  void run(int64_t r0, int64_t r1, int64_t c0, int64_t c1, const Emit& emit) {
    const Group<T>& group = problem.groups[static_cast<size_t>(problem.channels[0].group)];
    for (int64_t b0 = r0; b0 < r1; b0 += block_rows) {
      const int64_t rows = std::min(block_rows, r1 - b0);
      lists.clear(rows);
      products->pack_rows(b0, rows);
      for (int64_t j0 = c0; j0 < c1; j0 += P::TILE_N) {
        const int64_t n = std::min(P::TILE_N, c1 - j0);
        if (cover(group, Tile<T>{tile, ld, b0, rows, j0, n}, true) == Cover::NONE) continue;
        products->pack_columns(j0, n);
        for (int64_t i0 = b0; i0 < b0 + rows; i0 += P::TILE_M) {
          const Tile<T> t{tile, ld, i0, std::min(P::TILE_M, b0 + rows - i0), j0, n};
          const Cover covered = cover(group, t, true);
          if (covered == Cover::NONE) continue;
          products->scores(i0 - b0, t.m, 0, n, t.s, t.ld);
          for (int64_t r = 0; r < t.m; ++r) {
            keys(covered == Cover::SOME ? &group : nullptr, t, r);
            lists.offer(i0 - b0 + r, t.s + r * t.ld, n, static_cast<uint32_t>(j0 - c0));
          }
        }
      }
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t count = lists.finish(r);
        emit(b0 + r, lists.of(r), count);
      }
    }
  }

  // In place: row r of a tile of products becomes the keys of its pairs, -inf for no candidate.
  void keys(const Group<T>* tested, const Tile<T>& t, int64_t r) {
    const int64_t i = t.i0 + r, n = t.n;
    T* s = t.s + r * t.ld;
    if (problem.scaled()) score_row(problem, i, t.j0, n, s, s);
    const T sign = problem.channels[0].sign;
    if (!tested && !wanted.lower && !wanted.upper && !wanted.offsets && !wanted.sampled()) {
      if (sign != T(1))
        for (int64_t j = 0; j < n; ++j) s[j] = -s[j];
      return;
    }
    const T low = wanted.lower ? wanted.lower[i] : T(-INFINITY);
    const T high = wanted.upper ? wanted.upper[i] : T(INFINITY);
    if (tested) {
      weight_row(*tested, i, t.j0, n, weights);
    } else {
      for (int64_t j = 0; j < n; ++j) weights[j] = 0;
    }
    if (wanted.sampled()) {
      Noise::row(wanted.row_keys, i, wanted.col_keys, t.j0, n, noise);
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) {
        const bool in = s[j] >= low && s[j] <= high && weights[j] == T(0);
        s[j] = in ? wanted.beta * s[j] + T(noise[j]) : T(-INFINITY);
      }
    } else {
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) {
        const bool in = s[j] >= low && s[j] <= high && weights[j] == T(0);
        s[j] = in ? sign * s[j] : T(-INFINITY);
      }
    }
    if (!wanted.offsets) return;
    const int64_t* end = wanted.columns + wanted.offsets[i + 1];
    const int64_t* at = std::lower_bound(wanted.columns + wanted.offsets[i], end, t.j0,
                                         [](int64_t a, int64_t b) { return a < b; });
    for (; at != end && *at < t.j0 + n; ++at) s[*at - t.j0] = -INFINITY;
  }
};

// Rows are split among threads where there are many, columns where there are few. Then every part
// of the columns has a list of its own, and a last pass merges them.
template <class T, class P>
struct TopK {
  const Problem<T>& problem;
  const Selection<T>& wanted;
  int64_t row_parts = 1, col_parts = 1;
  std::vector<Candidate<T>> partial{};  // (part of the columns, row, k), up to a key of -inf

  int64_t m() const { return problem.x.rows; }
  int64_t k() const { return std::min(wanted.k, problem.y.rows); }
  int64_t first_column(int64_t part) const {
    return chunk_start(problem.y.rows, col_parts, part, P::TILE_N);
  }
  Candidate<T>* part_of(int64_t part, int64_t i) { return partial.data() + (part * m() + i) * k(); }

  void run(int threads, Parallel parallel) {
    constexpr int64_t kPartialBytes = int64_t(64) << 20, kFew = 4 * P::TILE_M;
    const int64_t n = problem.y.rows, list = k() * int64_t(sizeof(Candidate<T>));
    const double work = double(m()) * double(n) * (double(problem.x.cols) + 32) / 4e5;
    const int64_t parts = std::clamp<int64_t>(static_cast<int64_t>(work), 1, threads);
    const bool fits = parts * m() * list <= kPartialBytes && n >= 8 * parts * P::TILE_N;
    (fits && m() < parts * kFew ? col_parts : row_parts) = parts;
    col_parts = std::max(col_parts, (n >> 31) + 1);  // columns are numbered in 32 bits
    if (col_parts == 1) return parallel(row_parts, run_job, this);
    partial.assign(static_cast<size_t>(col_parts * m() * k()), Candidate<T>{-INFINITY, 0});
    parallel(row_parts * col_parts, run_job, this);
    parallel(parts, run_merge, this);
  }

  static void run_job(void* self, int64_t job) {
    TopK& t = *static_cast<TopK*>(self);
    const int64_t part = job % t.col_parts, rows = job / t.col_parts;
    const int64_t r0 = t.m() * rows / t.row_parts, r1 = t.m() * (rows + 1) / t.row_parts;
    const int64_t c0 = t.first_column(part), c1 = t.first_column(part + 1);
    if (r0 >= r1) return;
    TopKJob<T, P> work(t.problem, t.wanted, r1 - r0);
    work.run(r0, r1, c0, c1, [&](int64_t i, const Candidate<T>* list, int64_t count) {
      if (t.col_parts > 1) {
        std::copy(list, list + count, t.part_of(part, i));
      } else {
        for (int64_t slot = 0; slot < count; ++slot) t.put(i, slot, list[slot], 0);
        t.pad(i, count);
      }
    });
  }

  static void run_merge(void* self, int64_t job) {
    TopK& t = *static_cast<TopK*>(self);
    const int64_t parts = std::max(t.row_parts, t.col_parts);
    for (int64_t i = t.m() * job / parts; i < t.m() * (job + 1) / parts; ++i) t.merge(i);
  }

  // The next one of a part's list.
  struct Head {
    const Candidate<T>*at, *end;
    T key() const { return at == end ? T(-INFINITY) : at->key; }
  };

  // Of equal keys the earlier part comes first: its columns are smaller.
  void merge(int64_t i) {
    std::vector<Head> heads;
    for (int64_t p = 0; p < col_parts; ++p) heads.push_back({part_of(p, i), part_of(p, i) + k()});
    int64_t found = 0;
    for (; found < k(); ++found) {
      size_t best = 0;
      for (size_t p = 1; p < heads.size(); ++p)
        if (heads[p].key() > heads[best].key()) best = p;
      if (heads[best].key() == T(-INFINITY)) break;
      put(i, found, *heads[best].at++, first_column(static_cast<int64_t>(best)));
    }
    pad(i, found);
  }

  void put(int64_t i, int64_t slot, const Candidate<T>& c, int64_t first) const {
    const T sign = wanted.sampled() ? T(1) : problem.channels[0].sign;
    wanted.values[i * wanted.k + slot] = sign * c.key;
    wanted.indices[i * wanted.k + slot] = first + c.column;
  }

  void pad(int64_t i, int64_t from) const {
    for (int64_t slot = i * wanted.k + from; slot < (i + 1) * wanted.k; ++slot)
      wanted.values[slot] = -INFINITY, wanted.indices[slot] = -1;
  }
};

template <class T, class P>
void run_topk(const Problem<T>& problem, const Selection<T>& wanted, int threads,
              Parallel parallel) {
  TopK<T, P> topk{problem, wanted};
  if (problem.y.rows > 0) return topk.run(threads, parallel);
  for (int64_t i = 0; i < problem.x.rows; ++i) topk.pad(i, 0);
}
