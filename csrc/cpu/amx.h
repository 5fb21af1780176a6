// The products of a tile on AMX: bf16 operands, fp32 sums. Same interface as VectorProducts.
//
// Every operand is a matrix of 32-bit words, each holding two bf16 numbers. It is stored in blocks
// of 16 x 16 words, the size of one tile register. TDPBF16PS multiplies A (rows x pairs along K) by
// B (pairs along K x columns), so each product needs one operand paired along its rows and the
// other paired along its columns:
//
//   S = X Y^T     A: x, paired along D       B: y paired along D, transposed
//   dX += H Y     A: H, paired along n       B: y, paired along n
//   dY += H^T X   A: H paired along m, transposed   B: x, paired along m
//
// H is rounded to bf16 here. The fp32 sums are not rounded.

// A matrix of rows x words, in blocks of 16 x 16.
struct Blocks {
  uint32_t* data;
  int64_t across;  // blocks in a row of blocks

  uint32_t* block(int64_t i, int64_t k) const { return data + (i * across + k) * 256; }
  // Word k of row i. Sixteen words starting at a multiple of 16 are contiguous.
  uint32_t* at(int64_t i, int64_t k) const { return block(i / 16, k / 16) + i % 16 * 16 + k % 16; }
};

// NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result): a block has 256 words
inline void transpose_block(const uint32_t* from, uint32_t* to) {
  __m512i r[16], t[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(from + 16 * i);
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // r[4 q + c] holds column c (+ 4 per 128-bit lane) of rows 4 q .. 4 q + 3
  for (int c = 0; c < 4; ++c) {
    const __m512i a = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);
    const __m512i b = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
    const __m512i e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
    _mm512_storeu_si512(to + 16 * c, _mm512_shuffle_i32x4(a, b, 0x88));
    _mm512_storeu_si512(to + 16 * (4 + c), _mm512_shuffle_i32x4(d, e, 0x88));
    _mm512_storeu_si512(to + 16 * (8 + c), _mm512_shuffle_i32x4(a, b, 0xdd));
    _mm512_storeu_si512(to + 16 * (12 + c), _mm512_shuffle_i32x4(d, e, 0xdd));
  }
}
// NOLINTEND(bugprone-implicit-widening-of-multiplication-result)

class AmxProducts {
 public:
  static constexpr int64_t TILE_M = kTileRows, TILE_N = 2 * kTileRows;
  static constexpr int64_t kUnit = 32;
  static constexpr int64_t kDepth = INT64_MAX;  // all features at a time
  static_assert(TILE_M % 32 == 0, "tiles are whole pairs of tile registers");

  // How many rows and columns of a tile the products read or write: whole pairs of tile registers.
  static int64_t whole_rows(int64_t m) { return round_up(m, 32); }
  static int64_t whole_cols(int64_t n) { return round_up(n, 32); }

  AmxProducts(const Problem<float>& p, Carver& memory, int64_t block_rows, int64_t tile_cols,
              int64_t)
      : p_(p), words_(round_up(p.x.cols, 32) / 2) {
    const int64_t rows = whole_rows(block_rows), cols = whole_cols(tile_cols);
    x_ = {memory.take<uint32_t>(rows * words_), words_ / 16};
    x_pairs_ = {memory.take<uint32_t>(rows * words_), words_ / 8};
    y_t_ = {memory.take<uint32_t>(cols * words_), cols / 16};
    y_pairs_ = {memory.take<uint32_t>(cols * words_), words_ / 8};
    h_ = {memory.take<uint32_t>(TILE_M * cols / 2), cols / 32};
    h_t_ = {memory.take<uint32_t>(TILE_M * cols / 2), TILE_M / 32};
    band_ = memory.take<uint32_t>(16 * std::max(cols, words_));
    edge_ = memory.take<float>(32 * 32);
    rows_ = memory.take<uint16_t>(4 * words_);
    row_ = memory.take<float>(p.x.cols);
  }

  void select(int64_t, int64_t) {}

  void pack_rows(int64_t first, int64_t n, Use use) {
    for (int64_t i = 0; i < whole_rows(n); i += 2) {
      load_pair(p_.x, first, i, n);
      for (int64_t row = 0; row < 2 && use != Use::GRADIENTS; ++row)
        for (int64_t k = 0; k < words_; k += 16)
          __builtin_memcpy(x_.at(i + row, k), rows_ + row * 2 * words_ + 2 * k, 64);
      if (use != Use::SCORES) interleave(x_pairs_, i);
    }
  }

  void pack_columns(int64_t first, int64_t n, Use use) {
    for (int64_t j = 0; j < whole_cols(n); j += 16) {
      for (int64_t i = j; i < j + 16; i += 2) {
        load_pair(p_.y, first, i, n);
        for (int64_t row = 0; row < 2 && use != Use::GRADIENTS; ++row)
          for (int64_t k = 0; k < words_; k += 16)
            __builtin_memcpy(band_ + (k / 16 * 16 + i - j + row) * 16,
                             rows_ + row * 2 * words_ + 2 * k, 64);
        if (use != Use::SCORES) interleave(y_pairs_, i);
      }
      for (int64_t k = 0; use != Use::GRADIENTS && k < words_ / 16; ++k)
        transpose_block(band_ + k * 256, y_t_.block(k, j / 16));
    }
  }

  void scores(int64_t r, int64_t m, int64_t c, int64_t n, float* s, int64_t ld) const {
    for (int64_t j = 0; j < n; j += 32)
      for (int64_t i = 0; i < m; i += 32) {
        zero();
        multiply(x_, (r + i) / 16, 0, y_t_, 0, (c + j) / 16, words_ / 16);
        store(s + i * ld + j, ld);
      }
  }

  void gradients(int64_t r, int64_t m, int64_t c, int64_t n, float* h, int64_t ld, Into<float> dx,
                 Into<float> dy) {
    round(m, n, h, ld);
    const int64_t d = p_.x.cols;
    dx.clear(m * d), dy.clear(n * d);
    if (dx.at)
      for (int64_t k = 0; k < d; k += 32)
        for (int64_t i = 0; i < m; i += 32)
          add(h_, i / 16, y_pairs_, c / 32, k / 16, (n + 31) / 32, dx.at + i * d + k, m - i, d - k);
    if (dy.at)
      for (int64_t k = 0; k < d; k += 32)
        for (int64_t j = 0; j < n; j += 32)
          add(h_t_, j / 16, x_pairs_, r / 32, k / 16, (m + 31) / 32, dy.at + j * d + k, n - j,
              d - k);
  }

  // Configures the tile registers of this thread: eight of 16 rows x 64 bytes.
  struct Session {
    Session() { renew(); }
    void renew() {
      struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
      } config;
      asm volatile("" : : "r"(&config) : "memory");  // otherwise gcc 12 drops the stores
      _tile_loadconfig(&config);
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    ~Session() { _tile_release(); }
  };

 private:
  // Loads rows first + i and first + i + 1, rounded to bf16, with zeros beyond row n and beyond D.
  void load_pair(const Matrix& x, int64_t first, int64_t i, int64_t n) {
    for (int64_t row = 0; row < 2; ++row) {
      uint16_t* out = rows_ + row * 2 * words_;
      const int64_t d = i + row < n ? x.cols : 0;
      if (d && x.element == Element::BF16) {
        __builtin_memcpy(out, static_cast<const uint16_t*>(x.data) + (first + i + row) * d, 2 * d);
      } else if (d) {
        load_row(x, first + i + row, row_);
        for (int64_t k = 0; k < d; ++k)
          out[k] = static_cast<uint16_t>(__builtin_bit_cast(uint32_t, row_[k]) >> 16);
      }
      for (int64_t k = d; k < 2 * words_; ++k) out[k] = 0;
    }
  }

  // Stores the two loaded rows, i and i + 1, as row i / 2 of a matrix paired along its rows.
  void interleave(const Blocks& pairs, int64_t i) const {
    for (int64_t k = 0; k < 2 * words_; k += 16) {
      const uint16_t *a = rows_ + k, *b = a + 2 * words_;
      uint32_t* out = pairs.at(i / 2, k);
#pragma omp simd
      for (int e = 0; e < 16; ++e) out[e] = a[e] | uint32_t(b[e]) << 16;
    }
  }

  // Rounds H to bf16: paired along n and, transposed, paired along m. Zeros beyond both.
  void round(int64_t m, int64_t n, float* h, int64_t ld) {
    const int64_t rows = whole_rows(m), cols = whole_cols(n);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = n; j < cols; ++j) h[i * ld + j] = 0;
    for (int64_t i = m; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) h[i * ld + j] = 0;
    for (int64_t i0 = 0; i0 < rows; i0 += 32) {
      for (int64_t i = i0; i < i0 + 32; i += 2) {
        const float *a = h + i * ld, *b = a + ld;
        for (int64_t j = 0; j < cols; j += 32) {
          const __m512bh low =
              _mm512_cvtne2ps_pbh(_mm512_loadu_ps(a + j + 16), _mm512_loadu_ps(a + j));
          const __m512bh high =
              _mm512_cvtne2ps_pbh(_mm512_loadu_ps(b + j + 16), _mm512_loadu_ps(b + j));
          const __m512i u = (__m512i)low, v = (__m512i)high;
          _mm512_storeu_si512(h_.at(i, j / 2), u);
          _mm512_storeu_si512(h_.at(i + 1, j / 2), v);
          // words of rows i and i + 1, columns j .. j + 15 and j + 16 .. j + 31
          uint32_t* to = band_ + (i - i0) / 2 * 16;
          _mm512_storeu_si512(to + j * 16,
                              pair(_mm512_castsi512_si256(u), _mm512_castsi512_si256(v)));
          _mm512_storeu_si512(to + (j + 16) * 16, pair(_mm512_extracti64x4_epi64(u, 1),
                                                       _mm512_extracti64x4_epi64(v, 1)));
        }
      }
      for (int64_t j = 0; j < cols; j += 16)
        transpose_block(band_ + j * 16, h_t_.block(j / 16, i0 / 32));
    }
  }

  static __m512i pair(__m256i low, __m256i high) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(low),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
  }

  static void zero() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }

  // Adds the product of 2 x 2 blocks to registers 0 .. 3: A at (i, k), B at (l, j), over `depth`
  // blocks along K.
  static void multiply(const Blocks& a, int64_t i, int64_t k, const Blocks& b, int64_t l, int64_t j,
                       int64_t depth) {
    const uint32_t *a0 = a.block(i, k), *a1 = a.block(i + 1, k), *b0 = b.block(l, j);
    const int64_t down = b.across * 256;
    for (int64_t step = 0; step < depth; ++step, a0 += 256, a1 += 256, b0 += down) {
      _tile_loadd(4, a0, 64);
      _tile_loadd(6, b0, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, b0 + 256, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, a1, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }

  static void store(float* c, int64_t ld) {
    _tile_stored(0, c, ld * 4);
    _tile_stored(1, c + 16, ld * 4);
    _tile_stored(2, c + 16 * ld, ld * 4);
    _tile_stored(3, c + 16 * ld + 16, ld * 4);
  }

  // C += A B for 32 x 32 elements of C, of which `rows` x `cols` exist.
  void add(const Blocks& a, int64_t i, const Blocks& b, int64_t l, int64_t j, int64_t depth,
           float* c, int64_t rows, int64_t cols) const {
    const int64_t d = p_.x.cols;
    if (rows >= 32 && cols >= 32) {
      _tile_loadd(0, c, d * 4);
      _tile_loadd(1, c + 16, d * 4);
      _tile_loadd(2, c + 16 * d, d * 4);
      _tile_loadd(3, c + 16 * d + 16, d * 4);
      multiply(a, i, 0, b, l, j, depth);
      store(c, d);
      return;
    }
    zero();
    multiply(a, i, 0, b, l, j, depth);
    store(edge_, 32);
    for (int64_t y = 0; y < std::min<int64_t>(rows, 32); ++y)
      for (int64_t x = 0; x < std::min<int64_t>(cols, 32); ++x) c[y * d + x] += edge_[y * 32 + x];
  }

  const Problem<float>& p_;
  int64_t words_;  // words of a row
  Blocks x_, x_pairs_, y_t_, y_pairs_, h_, h_t_;
  uint32_t* band_;  // sixteen rows of words that will be transposed
  float* edge_;
  uint16_t* rows_;
  float* row_;
};
