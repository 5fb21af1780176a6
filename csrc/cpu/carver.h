// The arrays of one thread's scratch memory. Included once per instruction set.
//
// In a checked build (CL_CHECKED, which every sanitizer build defines) a guard follows each array.
// It holds a byte pattern and is poisoned under AddressSanitizer. The pattern detects writes that
// are not instrumented, such as stores of tile registers; the poison detects reads and reports
// where they happen. The memory begins as NaN everywhere, so that a number read before it is
// written shows in the result.

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Where the gradients of some rows go, if they are needed; those that are not added to what is
// there overwrite it.
template <class T>
struct Into {
  T* at = nullptr;
  bool add = true;

  void clear(int64_t size) const {
    if (at && !add) __builtin_memset(at, 0, static_cast<size_t>(size) * sizeof(T));
  }
};

// Zeroed memory that all threads share. Not a std::vector, because code of std::vector is not
// specific to the instruction set.
template <class U>
class Zeros {
 public:
  explicit Zeros(int64_t n) : data_(static_cast<U*>(std::calloc(size_t(n) + 1, sizeof(U)))) {
    if (!data_) throw std::bad_alloc();
  }
  Zeros(const Zeros&) = delete;
  Zeros& operator=(const Zeros&) = delete;
  ~Zeros() { std::free(data_); }
  U* data() const { return data_; }

 private:
  U* data_;
};

// Allocates the arrays that `layout(carver)` takes, each on its own cache line. The layout runs
// twice: the first run measures the size.
class Carver {
 public:
  template <class Layout>
  explicit Carver(const Layout& layout) {
    layout(*this);
    base_ = static_cast<char*>(scratch(used_));
#ifdef CL_CHECKED
    std::memset(base_, 0xff, static_cast<size_t>(used_));
#endif
    used_ = 0;
    layout(*this);
  }
  Carver(const Carver&) = delete;
  Carver& operator=(const Carver&) = delete;
  ~Carver() { check(); }

  template <class U>
  U* take(int64_t n) {
    U* array = base_ ? reinterpret_cast<U*>(base_ + used_) : nullptr;
    const int64_t end = used_ + n * static_cast<int64_t>(sizeof(U));
    used_ = round_up(end + kGuard, 64);
    guard(end);
    return array;
  }

 private:
#ifdef CL_CHECKED
  static constexpr int64_t kGuard = 64, kMost = 32;
  static constexpr unsigned char kPattern = 0xa5;

  // Guards bytes [end, used_).
  void guard(int64_t end) {
    if (!base_) return;
    if (guards_ == kMost) std::abort();
    begins_[guards_] = end, ends_[guards_++] = used_;
    std::memset(base_ + end, kPattern, static_cast<size_t>(used_ - end));
#ifdef CL_ASAN
    __asan_poison_memory_region(base_ + end, static_cast<size_t>(used_ - end));
#endif
  }

  void check() {
    for (int64_t g = 0; g < guards_; ++g) {
#ifdef CL_ASAN
      __asan_unpoison_memory_region(base_ + begins_[g], static_cast<size_t>(ends_[g] - begins_[g]));
#endif
      for (int64_t k = begins_[g]; k < ends_[g]; ++k) {
        if (static_cast<unsigned char>(base_[k]) == kPattern) continue;
        std::fprintf(stderr, "contrastloss: array %d of a job's scratch was overrun\n", int(g));
        std::abort();
      }
    }
  }

  int64_t begins_[kMost], ends_[kMost], guards_ = 0;
#else
  static constexpr int64_t kGuard = 0;
  void guard(int64_t) {}
  void check() {}
#endif

  char* base_ = nullptr;
  int64_t used_ = 0;
};
