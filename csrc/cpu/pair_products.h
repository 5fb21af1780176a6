// The products of a tile on vector units that multiply bf16: Product<Pair>, which the instruction
// set defines, adds two products at once to an fp32 sum. Same interface as VectorProducts.
//
// A word is a Pair: two bf16 numbers, neighbours along the sum. So each product needs one operand
// paired along its rows and the other along its columns:
//
//   S = X Y^T     x, paired along D            y paired along D, in panels of columns
//   dX += H Y     H, paired along n            y, paired along n, in panels of features
//   dY += H^T X   H paired along m             x, paired along m, in panels of features
//
// H is rounded to bf16 here. The fp32 sums are not rounded.

class PairProducts {
 public:
  static constexpr int NR = Gemm<Pair>::NR, MR = Gemm<Pair>::MR;
  static constexpr int64_t TILE_M = kTileRows, TILE_N = 2 * kTileRows;
  static constexpr int64_t kUnit = 32;
  // how many features at a time are multiplied, so that the operands stay in the cache
  static constexpr int64_t kDepth = 1024;
  static_assert(TILE_M % NR == 0 && TILE_M % MR == 0 && MR % 2 == 0 && NR % 2 == 0,
                "tiles are whole micro-tiles, which are whole pairs");

  static int64_t whole_rows(int64_t m) { return round_up(m, MR); }
  static int64_t whole_cols(int64_t n) { return std::max(round_up(n, NR), round_up(n, MR)); }

  // `depth`: the most features that are selected.
  PairProducts(const Problem<float>& p, Carver& memory, int64_t block_rows, int64_t tile_cols,
               int64_t depth)
      : p_(p), row_stride_(round_up(depth, NR) / 2 + 16) {
    select(0, depth);
    const int64_t rows = whole_rows(block_rows), cols = whole_cols(tile_cols);
    h_stride_ = cols / 2 + 16, h_t_stride_ = cols + 16;
    x_ = memory.take<Pair>(rows * row_stride_);
    x_pairs_ = memory.take<Pair>(rows * words_);
    y_t_ = memory.take<Pair>(cols * words_);
    y_pairs_ = memory.take<Pair>(cols * words_);
    h_ = memory.take<Pair>(TILE_M * h_stride_);
    h_t_ = memory.take<Pair>(TILE_M / 2 * h_t_stride_);
    pair_ = memory.take<Pair>(2 * words_);
    row_ = memory.take<float>(2 * words_);
  }

  // From here on, only features [first, first + n) are packed, multiplied and have gradients.
  void select(int64_t first, int64_t n) {
    first_ = first, d_ = n;
    words_ = round_up(n, NR) / 2;
  }

  void pack_rows(int64_t first, int64_t n, Use use) {
    x_panel_ = round_up(n, 2) / 2 * NR;
    for (int64_t i = 0; i < n; i += 2) {
      load_two(p_.x, first, i, n);
      for (int64_t row = 0; row < 2 && use != Use::GRADIENTS; ++row)
        __builtin_memcpy(x_ + (i + row) * row_stride_, pair_ + row * words_,
                         static_cast<size_t>(words_) * sizeof(Pair));
      if (use != Use::SCORES) interleave(x_pairs_ + i / 2 * NR, x_panel_);
    }
  }

  void pack_columns(int64_t first, int64_t n, Use use) {
    y_panel_ = round_up(n, NR) / 2 * NR;
    for (int64_t j = 0; j < round_up(n, NR); j += 2) {
      load_two(p_.y, first, j, n);
      for (int64_t row = 0; row < 2 && use != Use::GRADIENTS; ++row) {
        Pair* out = y_t_ + j / NR * words_ * NR + j % NR + row;
        for (int64_t k = 0; k < words_; ++k) out[k * NR] = pair_[row * words_ + k];
      }
      if (use != Use::SCORES) interleave(y_pairs_ + j / 2 * NR, y_panel_);
    }
  }

  void scores(int64_t r, int64_t m, int64_t c, int64_t n, float* s, int64_t ld) const {
    const Layout by_row{row_stride_, 1, words_, 0};
    const int64_t words = (d_ + 1) / 2;
    for (int64_t k = 0; k < words; k += kDepth / 2)
      Gemm<Pair>::run(m, round_up(n, NR), std::min(kDepth / 2, words - k), x_ + r * row_stride_ + k,
                      by_row, y_t_ + c * words_ + k * NR, words_ * NR, s, ld, k > 0);
  }

  void gradients(int64_t r, int64_t m, int64_t c, int64_t n, float* h, int64_t ld, Into<float> dx,
                 Into<float> dy) const {
    round(m, n, h, ld);
    const int64_t d = p_.x.cols, f = first_, across = (n + 1) / 2, down = (m + 1) / 2;
    if (dx.at)
      Gemm<Pair>::run(m, d_, across, h_, Layout{h_stride_, 1, across, 0}, y_pairs_ + c / 2 * NR,
                      y_panel_, dx.at + f, d, dx.add);
    if (dy.at)
      Gemm<Pair>::run(n, d_, down, h_t_, Layout{1, h_t_stride_, down, 0}, x_pairs_ + r / 2 * NR,
                      x_panel_, dy.at + f, d, dy.add);
  }

  struct Session {  // needs no setup per thread
    void renew() {}
  };

 private:
  static Pair bits(float v) { return __builtin_bit_cast(uint32_t, v); }
  static Pair join(Pair low, Pair high) { return low | high << 16; }

  // Loads rows first + i and first + i + 1, with zeros beyond row n and beyond the features.
  void load_two(const Matrix& x, int64_t first, int64_t i, int64_t n) const {
    for (int64_t row = 0; row < 2; ++row) {
      Pair* out = pair_ + row * words_;
      const bool exists = i + row < n;
      for (int64_t k = exists ? d_ / 2 : 0; k < words_; ++k) out[k] = 0;
      if (!exists) continue;
      if (x.element == Element::BF16) {
        const auto* from =
            static_cast<const uint16_t*>(x.data) + (first + i + row) * x.cols + first_;
        __builtin_memcpy(out, from, static_cast<size_t>(d_) * sizeof *from);
        continue;
      }
      load_part(x, first + i + row, first_, d_, row_);
      if (d_ % 2) row_[d_] = 0;
      for (int64_t k = 0; k < (d_ + 1) / 2; ++k)
        out[k] = join(bits(row_[2 * k]) >> 16, bits(row_[2 * k + 1]) >> 16);
    }
  }

  // Stores the two loaded rows, paired, as one row of panels of NR features.
  void interleave(Pair* to, int64_t panel) const {
    for (int64_t k = 0; k < words_; k += NR / 2, to += panel)
      for (int64_t w = 0; w < NR / 2; ++w) {
        const Pair a = pair_[k + w], b = pair_[words_ + k + w];
        to[2 * w] = join(a & 0xffffu, b);
        to[2 * w + 1] = (a >> 16) | (b & 0xffff0000u);
      }
  }

  // Rounds H to bf16, paired along n and along m. Zeros beyond both.
  void round(int64_t m, int64_t n, float* h, int64_t ld) const {
    for (int64_t i = 0; n % 2 && i < m; ++i) h[i * ld + n] = 0;
    for (int64_t j = 0; m % 2 && j < n + n % 2; ++j) h[m * ld + j] = 0;
    for (int64_t i = 0; i < m; ++i) {
      const float* v = h + i * ld;
      Pair* out = h_ + i * h_stride_;
#pragma omp simd
      for (int64_t k = 0; k < (n + 1) / 2; ++k)
        out[k] = join(to_bf16(v[2 * k]), to_bf16(v[2 * k + 1]));
    }
    for (int64_t i = 0; i < m; i += 2) {
      const float *v = h + i * ld, *next = v + ld;
      Pair* out = h_t_ + i / 2 * h_t_stride_;
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) out[j] = join(to_bf16(v[j]), to_bf16(next[j]));
    }
  }

  const Problem<float>& p_;
  const int64_t row_stride_;   // strides are no powers of two
  int64_t first_, d_, words_;  // the features that are selected, and the words of a row of them
  int64_t h_stride_, h_t_stride_, x_panel_ = 0, y_panel_ = 0;
  Pair *x_, *x_pairs_, *y_t_, *y_pairs_, *h_, *h_t_, *pair_;
  float* row_;
};
