// The k best columns of every row. Included once per instruction set.
//
// Each row keeps a list of candidates and a floor, the key that a new candidate must exceed. A
// vector compare rejects nearly all of a tile's row. Columns are visited in ascending order, so the
// first of several equal keys stays.

// The lists of some rows. Lists of up to kSorted candidates are kept sorted. Longer ones collect up
// to twice as many candidates and are then cut to the k best, which raises the floor.
template <class T>
struct Shortlists {
  static constexpr int64_t kSorted = 64;
  int64_t k, capacity;
  Packed<T>* all = nullptr;
  T* floors = nullptr;
  int64_t* sizes = nullptr;

  explicit Shortlists(int64_t wanted)
      : k(wanted), capacity(wanted <= kSorted ? wanted : 2 * wanted) {}

  void clear(int64_t rows) {
    for (int64_t r = 0; r < rows; ++r) floors[r] = -INFINITY, sizes[r] = 0;
    for (int64_t c = 0; k <= kSorted && c < rows * capacity; ++c) all[c] = 0;
  }

  Packed<T>* of(int64_t r) const { return all + r * capacity; }

  // Offers the keys of row r at columns `first` and following.
  void offer(int64_t r, const T* keys, int64_t n, uint32_t first) {
    constexpr int64_t kLanes = kVectorBytes / sizeof(T), kChunk = 4 * kLanes;
    for (int64_t c = 0; c < n; c += kChunk) {
      const int64_t end = std::min(n, c + kChunk);
      if (!any(keys, c, end, floors[r])) continue;
      for (int64_t v = c; v < end; v += kLanes) {
        const int64_t last = std::min(end, v + kLanes);
        if (!any(keys, v, last, floors[r])) continue;
        for (int64_t j = v; j < last; ++j)
          if (keys[j] > floors[r]) take(r, Candidate<T>::pack(keys[j], first + uint32_t(j)));
      }
    }
  }

  static CL_INLINE bool any(const T* keys, int64_t from, int64_t to, T floor) {
    int found = 0;
#pragma omp simd reduction(| : found)
    for (int64_t j = from; j < to; ++j) found |= keys[j] > floor;
    return found != 0;
  }

  void take(int64_t r, Packed<T> c) {
    Packed<T>* list = of(r);
    if (k <= kSorted) {
      insert(list, c);
      if (list[k - 1]) floors[r] = Candidate<T>::key(list[k - 1]);
      sizes[r] += sizes[r] < k;
      return;
    }
    list[sizes[r]++] = c;
    if (sizes[r] < capacity) return;
    sizes[r] = cut(r, sizes[r]);
    floors[r] = Candidate<T>::key(list[k - 1]);
  }

  // Each slot takes the better of its own candidate and the worse of c and the slot before it.
  void insert(Packed<T>* list, Packed<T> c) const {
#pragma omp simd
    for (int64_t i = k - 1; i > 0; --i) {
      const Packed<T> above = list[i - 1], own = list[i];
      const Packed<T> falls = above < c ? above : c;
      list[i] = own > falls ? own : falls;
    }
    if (c > list[0]) list[0] = c;
  }

  // Moves the k best to the front, the worst of them last. Returns how many remain.
  int64_t cut(int64_t r, int64_t size) const {
    if (size <= k) return size;
    std::nth_element(of(r), of(r) + (k - 1), of(r) + size, std::greater<>());
    return k;
  }

  // Sorts the best candidates. Returns how many there are.
  int64_t finish(int64_t r) const {
    const int64_t size = cut(r, sizes[r]);
    if (k > kSorted) std::sort(of(r), of(r) + size, std::greater<>());
    return size;
  }
};

// The scratch memory of one thread, and one job: rows [r0, r1) against columns [c0, c1).
template <class T, class P>
struct TopKJob {
  const Problem<T>& problem;
  const Selection<T>& wanted;
  int64_t block_rows = 0, ld = 0;
  T *tile = nullptr, *weights = nullptr;
  float* noise = nullptr;
  Shortlists<T> lists;
  std::optional<P> products;
  typename P::Session session{};
  Carver carver;

  TopKJob(const Problem<T>& p, const Selection<T>& s, int64_t rows)
      : problem(p),
        wanted(s),
        lists(std::min(s.k, p.y.rows)),
        carver([&](Carver& memory) { layout(memory, rows); }) {}

  void layout(Carver& memory, int64_t rows) {
    constexpr int64_t kListBytes = int64_t(32) << 20;
    const int64_t listed = kListBytes / (lists.capacity * int64_t(sizeof(Packed<T>)));
    const int64_t packed = (int64_t(1) << 20) / problem.x.cols / P::TILE_M * P::TILE_M;
    block_rows = std::min({std::clamp(packed, P::TILE_M, 12 * P::TILE_M),
                           std::max<int64_t>(listed / P::kUnit * P::kUnit, P::kUnit), rows});
    const int64_t cols = std::min(P::TILE_N, problem.y.rows);
    ld = round_up(P::whole_cols(cols), 64) + 16;
    tile = memory.take<T>(P::whole_rows(std::min(P::TILE_M, block_rows)) * ld);
    weights = memory.take<T>(ld);
    noise = memory.take<float>(ld);
    lists.floors = memory.take<T>(block_rows);
    lists.sizes = memory.take<int64_t>(block_rows);
    lists.all = memory.take<Packed<T>>(block_rows * lists.capacity);
    products.emplace(problem, memory, block_rows, cols, problem.x.cols);
  }

  // `emit(i, candidates, count)` receives the result of each row.
  template <class Emit>
  void run(int64_t r0, int64_t r1, int64_t c0, int64_t c1, const Emit& emit) {
    const Group<T>& group = problem.groups[static_cast<size_t>(problem.channels[0].group)];
    for (int64_t b0 = r0; b0 < r1; b0 += block_rows) {
      const int64_t rows = std::min(block_rows, r1 - b0);
      lists.clear(rows);
      products->pack_rows(b0, rows, Use::SCORES);
      for (int64_t j0 = c0; j0 < c1; j0 += P::TILE_N) {
        const int64_t n = std::min(P::TILE_N, c1 - j0);
        if (cover(group, Tile<T>{tile, ld, b0, rows, j0, n}) == Cover::NONE) continue;
        products->pack_columns(j0, n, Use::SCORES);
        for (int64_t i0 = b0; i0 < b0 + rows; i0 += P::TILE_M) {
          const Tile<T> t{tile, ld, i0, std::min(P::TILE_M, b0 + rows - i0), j0, n};
          const Cover covered = cover(group, t);
          if (covered == Cover::NONE) continue;
          if (poll()) session.renew();
          products->scores(i0 - b0, t.m, 0, n, t.s, t.ld);
          for (int64_t r = 0; r < t.m; ++r) {
            keys(weighted(group, covered) ? &group : nullptr, t, r);
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

  // Turns scores into keys with noise. Not inlined: beside the noise's own vectors, GCC leaves the
  // loop scalar.
  CL_NOINLINE void perturb(int64_t n, T low, T high, T beta, T* s) const {
    const T* own = weights;
    const float* drawn = noise;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      const bool in = s[j] > T(-INFINITY) && s[j] >= low && s[j] <= high && own[j] == T(0);
      s[j] = in ? beta * s[j] + T(drawn[j]) : T(-INFINITY);
    }
  }

  // Turns row r of a tile of products into the keys of its pairs, in place; -inf: no candidate.
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
      weight_row(*tested, i, t.j0, n, s, weights);
    } else {
      for (int64_t j = 0; j < n; ++j) weights[j] = 0;
    }
    if (wanted.sampled()) {
      Noise::row(wanted.row_keys, i, wanted.col_keys, t.j0, n, noise);
      perturb(n, low, high, wanted.beta, s);
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

// Threads share the rows if there are many and the columns if there are few. In the second case
// each part of the columns has its own lists, and a last pass merges them.
template <class T, class P>
struct TopK {
  const Problem<T>& problem;
  const Selection<T>& wanted;
  int64_t row_parts = 1, col_parts = 1;
  Packed<T>* partial = nullptr;  // (part of the columns, row, k); a 0 ends a list

  int64_t m() const { return problem.x.rows; }
  int64_t k() const { return std::min(wanted.k, problem.y.rows); }
  int64_t first_column(int64_t part) const {
    return chunk_start(problem.y.rows, col_parts, part, P::TILE_N);
  }
  Packed<T>* part_of(int64_t part, int64_t i) { return partial + (part * m() + i) * k(); }

  void run(int threads, Parallel parallel) {
    constexpr int64_t kPartialBytes = int64_t(64) << 20, kFew = 4 * P::TILE_M;
    const int64_t n = problem.y.rows, list = k() * int64_t(sizeof(Packed<T>));
    const double work = double(m()) * double(n) * (double(problem.x.cols) + 32) / 4e5;
    const int64_t parts = std::clamp<int64_t>(static_cast<int64_t>(work), 1, threads);
    const bool fits = parts * m() * list <= kPartialBytes && n >= 8 * parts * P::TILE_N;
    (fits && m() < parts * kFew ? col_parts : row_parts) = parts;
    col_parts = std::max(col_parts, (n >> 31) + 1);  // column numbers have 32 bits
    if (col_parts == 1) return parallel(row_parts, run_job, this);
    const Zeros<Packed<T>> lists(col_parts * m() * k());
    partial = lists.data();
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
    work.run(r0, r1, c0, c1, [&](int64_t i, const Packed<T>* list, int64_t count) {
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

  // The next candidate of a part's list; the part's columns begin at `first`.
  struct Head {
    const Packed<T>*at, *end;
    int64_t first;
    bool empty() const { return at == end || *at == 0; }
  };

  // For equal keys the earlier part comes first, since its columns are smaller.
  void merge(int64_t i) {
    std::vector<Head> heads;
    for (int64_t p = 0; p < col_parts; ++p)
      heads.push_back({part_of(p, i), part_of(p, i) + k(), first_column(p)});
    int64_t found = 0;
    for (; found < k(); ++found) {
      Head* best = nullptr;
      for (Head& head : heads)
        if (!head.empty() && (!best || Candidate<T>::key(*head.at) > Candidate<T>::key(*best->at)))
          best = &head;
      if (!best) break;
      put(i, found, *best->at++, best->first);
    }
    pad(i, found);
  }

  void put(int64_t i, int64_t slot, Packed<T> c, int64_t first) const {
    const T sign = wanted.sampled() ? T(1) : problem.channels[0].sign;
    wanted.values[i * wanted.k + slot] = sign * Candidate<T>::key(c);
    wanted.indices[i * wanted.k + slot] = first + Candidate<T>::column(c);
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
