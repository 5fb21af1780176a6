// A register-blocked matrix product on packed panels. Included once per instruction set, inside
// that set's namespace and target (isa_*.cpp), so instruction sets share none of this code.
//
//   C(i, j) (+)= sum_k A(i, k) B(k, j)
//
// B is packed in panels of NR columns; A is read in place, one broadcast element at a time. One
// micro-kernel with MR x NR accumulators computes all three products of a tile: S = X Y^T, dX += H
// Y, dY += H^T X.

// Vector operations on the element type of a product.
template <class T>
struct Product {
  using Acc = T;
  static constexpr int LANES = kVectorBytes / sizeof(T);
  typedef T Vec __attribute__((vector_size(kVectorBytes), aligned(sizeof(T)), may_alias));
  static CL_INLINE Vec load(const T* p) { return *reinterpret_cast<const Vec*>(p); }
  static CL_INLINE Vec broadcast(const T* p) { return *p - Vec{}; }
  static CL_INLINE Vec fma(Vec acc, Vec a, Vec b) { return acc + a * b; }
};

// A(i, k) is at a + i * row + (k / segment) * jump + (k % segment) * col.
struct Layout {
  int64_t row, col, segment, jump;
};

template <class T>
struct Gemm {
  using P = Product<T>;
  using Acc = typename P::Acc;
  typedef Acc AccVec __attribute__((vector_size(kVectorBytes), aligned(sizeof(Acc)), may_alias));
  static constexpr int NR = 2 * P::LANES;
  static constexpr int MR = kMicroRows;

  // Computes an MR x NR block of C, of which the first `rows` x `cols` elements are written.
  static CL_NOINLINE void micro(int64_t k, const T* a, Layout w, const T* b, Acc* c, int64_t ldc,
                                int rows, int cols, bool add) {
    static_assert(MR % 3 == 0, "rows are addressed in threes");
    AccVec acc[MR][2];
#pragma GCC unroll 16
    for (int r = 0; r < MR; ++r) acc[r][0] = acc[r][1] = AccVec{};
    const int64_t s = w.row;
    for (int64_t left = k; left > 0; left -= w.segment, a += w.jump) {
      const T* p[MR / 3];
#pragma GCC unroll 8
      // NOLINTNEXTLINE(bugprone-implicit-widening-of-multiplication-result): q is at most 3
      for (int q = 0; q < MR / 3; ++q) p[q] = a + 3 * q * s;
      const int64_t steps = left < w.segment ? left : w.segment;
      for (int64_t step = 0; step < steps; ++step, b += NR) {
        const typename P::Vec b0 = P::load(b), b1 = P::load(b + P::LANES);
#pragma GCC unroll 8
        for (int q = 0; q < MR / 3; ++q) {
#pragma GCC unroll 3
          for (int r = 0; r < 3; ++r) {
            const auto v = P::broadcast(p[q] + r * s);
            acc[3 * q + r][0] = P::fma(acc[3 * q + r][0], v, b0);
            acc[3 * q + r][1] = P::fma(acc[3 * q + r][1], v, b1);
          }
          p[q] += w.col;
        }
      }
    }
    if (cols == NR) {
#pragma GCC unroll 16
      for (int r = 0; r < MR; ++r) {
        if (r >= rows) break;
        AccVec* out0 = reinterpret_cast<AccVec*>(c + r * ldc);
        AccVec* out1 = reinterpret_cast<AccVec*>(c + r * ldc + P::LANES);
        *out0 = add ? *out0 + acc[r][0] : acc[r][0];
        *out1 = add ? *out1 + acc[r][1] : acc[r][1];
      }
      return;
    }
    Acc whole[MR][NR];
    __builtin_memcpy(whole, acc, sizeof(whole));
    for (int r = 0; r < rows; ++r)
      for (int j = 0; j < cols; ++j) c[r * ldc + j] = (add ? c[r * ldc + j] : Acc(0)) + whole[r][j];
  }

  // C is m x n. Panel q of B begins at b + q * panel. A must be readable up to a multiple of MR
  // rows; what is read beyond row m is not used.
  static void run(int64_t m, int64_t n, int64_t k, const T* a, Layout w, const T* b, int64_t panel,
                  Acc* c, int64_t ldc, bool add) {
    for (int64_t j = 0; j < n; j += NR, b += panel) {
      const int cols = static_cast<int>(n - j < NR ? n - j : NR);
      for (int64_t i = 0; i < m; i += MR) {
        const int rows = static_cast<int>(m - i < MR ? m - i : MR);
        micro(k, a + i * w.row, w, b, c + i * ldc + j, ldc, rows, cols, add);
      }
    }
  }
};
