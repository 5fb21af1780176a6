// The products of a tile on vector units, with packed panels. Included once per instruction set.
//
//   S = X Y^T,   dX += H Y,   dY += H^T X

template <class T>
class VectorProducts {
 public:
  using Vec = typename Product<T>::Vec;
  static constexpr int NR = Gemm<T>::NR, MR = Gemm<T>::MR, LANES = Product<T>::LANES;
  static constexpr int64_t TILE_M = kTileRows, TILE_N = 2 * kTileRows;
  static_assert(TILE_M % NR == 0 && TILE_M % MR == 0, "tiles are whole micro-tiles");
  // chunks of rows and columns begin at multiples of this
  static constexpr int64_t kUnit = 32;
  // how many features at a time are multiplied, so that the operands stay in the cache
  static constexpr int64_t kDepth = 2048 / sizeof(T);

  // How many rows and columns of a tile the products read or write: whole micro-tiles. All buffers
  // for tiles and for packed rows and columns have these sizes.
  static int64_t whole_rows(int64_t m) { return round_up(m, MR); }
  static int64_t whole_cols(int64_t n) { return std::max(round_up(n, NR), round_up(n, MR)); }

  // `depth`: the most features that are selected.
  VectorProducts(const Problem<T>& p, Carver& memory, int64_t block_rows, int64_t tile_cols,
                 int64_t depth)
      : p_(p), d_(p.x.cols) {
    depth = round_up(depth, NR);
    const int64_t cols = whole_cols(tile_cols);
    x_ = memory.take<T>(whole_rows(block_rows) * depth);
    y_ = memory.take<T>(cols * depth);
    y_t_ = memory.take<T>(cols * depth);
    row_ = memory.take<T>(depth);
  }

  // From here on, only features [first, first + n) are packed, multiplied and have gradients.
  void select(int64_t first, int64_t n) { first_ = first, d_ = n; }

  void pack_rows(int64_t first, int64_t n, Use) {
    stride_x_ = whole_rows(n);
    pack(p_.x, p_.x_norm, first, n, stride_x_, x_);
  }

  void pack_columns(int64_t first, int64_t n, Use use) {
    stride_y_ = round_up(n, NR);
    pack(p_.y, p_.y_norm, first, n, stride_y_, y_);
    if (use != Use::GRADIENTS) transpose();
  }

  // Computes the products of packed rows [r, r + m) and packed columns [c, c + n).
  void scores(int64_t r, int64_t m, int64_t c, int64_t n, T* s, int64_t ld) const {
    const Layout by_panel{NR, 1, NR, stride_x_ * NR};
    for (int64_t k = 0; k < d_; k += kDepth)
      Gemm<T>::run(m, round_up(n, NR), std::min(kDepth, d_ - k), x_ + (r + k / NR * stride_x_) * NR,
                   by_panel, y_t_ + c * d_ + k * NR, d_ * NR, s, ld, k > 0);
  }

  // The gradients from H of these rows and columns.
  void gradients(int64_t r, int64_t m, int64_t c, int64_t n, T* h, int64_t ld, Into<T> dx,
                 Into<T> dy) const {
    const int64_t d = p_.x.cols, f = first_;
    // zero the padding: unwritten numbers may be denormal, which is slow
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = n; j < whole_cols(n); ++j) h[i * ld + j] = 0;
    for (int64_t i = m; i < whole_rows(m); ++i)
      for (int64_t j = 0; j < n; ++j) h[i * ld + j] = 0;
    const Layout by_row{ld, 1, n, 0}, by_column{1, ld, m, 0};
    if (dx.at) Gemm<T>::run(m, d_, n, h, by_row, y_ + c * NR, stride_y_ * NR, dx.at + f, d, dx.add);
    if (dy.at)
      Gemm<T>::run(n, d_, m, h, by_column, x_ + r * NR, stride_x_ * NR, dy.at + f, d, dy.add);
  }

  struct Session {  // needs no setup per thread
    void renew() {}
  };

 private:
  // Packs rows in panels of NR features, [panel][row][NR], with zeros beyond the features and
  // beyond row n; as unit vectors if there are inverse norms.
  void pack(const Matrix& x, const T* norm, int64_t first, int64_t n, int64_t stride, T* out) {
    const int64_t panels = (d_ + NR - 1) / NR;
    for (int64_t k = d_; k < panels * NR; ++k) row_[k] = 0;
    for (int64_t i = 0; i < stride; ++i) {
      if (i < n) load_part(x, first + i, first_, d_, row_);
      if (i < n && norm)
        for (int64_t k = 0; k < d_; ++k) row_[k] *= norm[first + i];
      if (i == n)
        for (int64_t k = 0; k < panels * NR; ++k) row_[k] = 0;
      for (int64_t q = 0; q < panels; ++q)
        __builtin_memcpy(out + (q * stride + i) * NR, row_ + q * NR, NR * sizeof(T));
    }
  }

  // Transposes the packed columns into panels of NR columns, [panel][feature][NR].
  void transpose() {
    for (int64_t p = 0; p < stride_y_ / NR; ++p)
      for (int64_t k = 0; k < d_; k += LANES) {
        const T* from = y_ + ((k / NR) * stride_y_ + p * NR) * NR + k % NR;
        const int64_t features = std::min<int64_t>(LANES, d_ - k);
        for (int half = 0; half < NR; half += LANES)
          transpose_lanes(from + half * NR, y_t_ + (p * d_ + k) * NR + half, features);
      }
  }

  // Transposes LANES vectors, NR apart, and stores the first `n` of the results, NR apart. Step H
  // swaps bit H of the lane number with bit H of the vector number.
  static void transpose_lanes(const T* from, T* to, int64_t n) {
    Vec v[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) v[i] = Product<T>::load(from + i * NR);
    swap_bit<LANES / 2>(v);
    for (int64_t i = 0; i < n; ++i) __builtin_memcpy(to + i * NR, &v[i], sizeof(Vec));
  }

  template <int H>
  static CL_INLINE void swap_bit(Vec* v) {
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) {
      if (i & H) continue;
      const Vec a = v[i], b = v[i + H];
      v[i] = even<H>(a, b, std::make_index_sequence<LANES>());
      v[i + H] = odd<H>(a, b, std::make_index_sequence<LANES>());
    }
    if constexpr (H > 1) swap_bit<H / 2>(v);
  }
  template <int H, size_t... L>
  static CL_INLINE Vec even(Vec a, Vec b, std::index_sequence<L...>) {
    return __builtin_shufflevector(a, b, (L & H ? LANES + L - H : L)...);
  }
  template <int H, size_t... L>
  static CL_INLINE Vec odd(Vec a, Vec b, std::index_sequence<L...>) {
    return __builtin_shufflevector(a, b, (L & H ? LANES + L : L + H)...);
  }

  const Problem<T>& p_;
  int64_t first_ = 0, d_;  // the features that are selected
  T *x_, *y_, *y_t_, *row_;
  int64_t stride_x_ = 0, stride_y_ = 0;
};
