// Which pairs of a tile a channel includes, and their log-weights. Included once per instruction
// set.

// Rows [i0, i0 + m) x columns [j0, j0 + n) of the pair scores, row r at s + r * ld.
template <class T>
struct Tile {
  T* s;
  int64_t ld, i0, m, j0, n;
};

// A reference to a channel. The type belongs to this instruction set, and so do containers of it.
template <class T>
struct Ref {
  const Channel<T>* channel;
  const Channel<T>& operator*() const { return *channel; }
  const Channel<T>* operator->() const { return channel; }
};

enum class Cover { NONE, SOME, ALL };

struct Range {
  int64_t low, high;
};

inline Range id_range(const int64_t* ids, int64_t first, int64_t n) {
  if (ids == nullptr) return {first, first + n - 1};
  Range r{ids[first], ids[first]};
  for (int64_t k = first; k < first + n; ++k) {
    r.low = ids[k] < r.low ? ids[k] : r.low;
    r.high = ids[k] > r.high ? ids[k] : r.high;
  }
  return r;
}

// Decides by the ranges of the ids: most tiles need no tests of single pairs.
inline Cover cover(const Test& test, const Range& r, const Range& c) {
  const bool apart = r.high < c.low || c.high < r.low;
  const bool equal = r.low == r.high && c.low == c.high && r.low == c.low;
  switch (test.op) {
    case Compare::EQ: return apart ? Cover::NONE : equal ? Cover::ALL : Cover::SOME;
    case Compare::NE: return apart ? Cover::ALL : equal ? Cover::NONE : Cover::SOME;
    case Compare::LT:
      return r.high < c.low ? Cover::ALL : r.low >= c.high ? Cover::NONE : Cover::SOME;
    default: return Cover::SOME;
  }
}

template <class T>
Cover cover(const Group<T>& group, const Tile<T>& t) {
  Cover all = Cover::ALL;
  for (const Test& test : group.tests) {
    const Cover one = cover(test, id_range(test.row, t.i0, t.m), id_range(test.col, t.j0, t.n));
    if (one == Cover::NONE) return one;
    if (one == Cover::SOME) all = one;
  }
  return all;
}

// Whether the pairs of a tile with this cover have log-weights other than 0.
template <class T>
bool weighted(const Group<T>& group, Cover cover) {
  return cover == Cover::SOME || !group.terms.empty();
}

CL_INLINE int64_t id_at(const int64_t* ids, int64_t k) { return ids ? ids[k] : k; }

// Sets w to -inf where the ids of a row and of columns fail the test. Not inlined: within a larger
// function, GCC's code for these loops is up to 8 % slower.
template <Compare OP, class T>
CL_NOINLINE void test_ids(int64_t id, const int64_t* ids, int64_t width, int64_t n, T* w) {
  const T no = -INFINITY;
  for (int64_t j = 0; j < n; ++j) w[j] = passes<OP>(id, ids[j], width) ? w[j] : no;
}
// The same for the positions of columns, from j0 on.
template <Compare OP, class T>
CL_NOINLINE void test_positions(int64_t id, int64_t j0, int64_t width, int64_t n, T* w) {
  const T no = -INFINITY;
  for (int64_t j = 0; j < n; ++j) w[j] = passes<OP>(id, j0 + j, width) ? w[j] : no;
}

// Sets w of row i to -inf for pairs that fail the test.
template <class T>
void test_row(const Test& test, int64_t i, int64_t j0, int64_t n, T* w) {
  const int64_t id = test.row ? test.row[i] : i;
  const T no = -INFINITY;
  if (test.col == nullptr && (test.op == Compare::NE || test.op == Compare::EQ)) {
    const bool inside = id >= j0 && id < j0 + n;
    const int64_t here = inside ? id - j0 : 0;
    if (test.op == Compare::NE) {
      if (inside) w[here] = no;
      return;
    }
    const T kept = inside ? w[here] : no;
    for (int64_t j = 0; j < n; ++j) w[j] = no;
    if (inside) w[here] = kept;
    return;
  }
  const int64_t* ids = test.col;
  switch (test.op) {
#define CL_CASE(OP)                                                        \
  case Compare::OP:                                                        \
    if (ids) return test_ids<Compare::OP>(id, ids + j0, test.width, n, w); \
    return test_positions<Compare::OP>(id, j0, test.width, n, w);
    CL_EACH_COMPARE(CL_CASE)
#undef CL_CASE
  }
}

template <TermKind KIND, class T>
void form_row(const Term<T>& term, int64_t i, int64_t j0, int64_t n, T* w) {
  const T* left = term.row + i * term.extent;
  for (int64_t j = 0; j < n; ++j) {
    const T* right = term.col + (j0 + j) * term.extent;
    T t = 0;
#pragma omp simd reduction(+ : t)
    for (int64_t e = 0; e < term.extent; ++e) t += left[e] * right[e];
    w[j] += form_weight<KIND>(term.value, t);
  }
}

template <class T>
void term_row(const Term<T>& term, int64_t i, int64_t j0, int64_t n, const T* s, T* w) {
  switch (term.kind) {
    case TermKind::ROW: {
      const T u = term.row[i];
      for (int64_t j = 0; j < n; ++j) w[j] += u;
      break;
    }
    case TermKind::COL:
      for (int64_t j = 0; j < n; ++j) w[j] += term.col[j0 + j];
      break;
    case TermKind::DISTANCE: {
      const T label = term.row[i];
      for (int64_t j = 0; j < n; ++j) w[j] += distance_weight(term.value, label, term.col[j0 + j]);
      break;
    }
    case TermKind::DIFFERING:
      for (int64_t j = 0; j < n; ++j) {
        int count = 0;
        for (size_t t = 0; t < term.row_ids.size(); ++t)
          count += id_at(term.row_ids[t], i) != id_at(term.col_ids[t], j0 + j);
        w[j] += std::log(T(count));
      }
      break;
    case TermKind::FORM: return form_row<TermKind::FORM>(term, i, j0, n, w);
    case TermKind::LOG_FORM: return form_row<TermKind::LOG_FORM>(term, i, j0, n, w);
    case TermKind::AT_MOST: return form_row<TermKind::AT_MOST>(term, i, j0, n, w);
    case TermKind::NOT_ABOVE: {
      const T bound = term.row[i];
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) w[j] += up_to(bound, s[j]);
      break;
    }
  }
}

// Which pairs of the tile pass each group's tests.
template <class T>
std::vector<Cover> covers(const Problem<T>& p, const Tile<T>& t) {
  std::vector<Cover> found;
  for (const Group<T>& group : p.groups) found.push_back(cover(group, t));
  return found;
}

// The channels that one fused pass over a tile can compute: the LSE channels with theta = 1 of one
// group, which may have one bound on the scores, and the plain sums and counts of one group, each
// with its tests. -1: the tile has no pair for them.
template <class T>
struct Roles {
  bool fusable = false;
  int logs = -1, sums = -1;
  bool masked = false;        // there are tests or sums
  const T* bounds = nullptr;  // per row
};

// Considers the channels that `asked` selects; the others need no work.
template <class T, class Asked>
Roles<T> roles(const Problem<T>& p, const std::vector<Cover>& covered, const Asked& asked) {
  Roles<T> found{true};
  for (const Channel<T>& c : p.channels) {
    const Cover cover = covered[static_cast<size_t>(c.group)];
    if (cover == Cover::NONE || !asked(c)) continue;
    const bool log = c.kind == Kind::LSE && c.direct();
    if (!log && !c.plain()) return {};
    int& role = log ? found.logs : found.sums;
    if (role >= 0 && role != c.group) return {};
    const std::vector<Term<T>>& terms = p.groups[static_cast<size_t>(c.group)].terms;
    if (!terms.empty()) {
      // with a bias, this pass may round a score, and so compare it, other than score_row does
      if (!log || terms.size() > 1 || terms[0].kind != TermKind::NOT_ABOVE || p.beta) return {};
      found.bounds = terms[0].row;
    }
    role = c.group;
    found.masked |= cover == Cover::SOME || !log;
  }
  found.fusable = found.logs >= 0;
  return found;
}

// The one channel of a tile that `asked` selects, if it is a sum along rows over all of its pairs,
// without weights; otherwise null.
template <class T, class Asked>
const Channel<T>* only_sum(const Problem<T>& p, const std::vector<Cover>& covered,
                           const Asked& asked) {
  const Channel<T>* found = nullptr;
  for (const Channel<T>& c : p.channels) {
    const size_t group = static_cast<size_t>(c.group);
    if (covered[group] == Cover::NONE || !asked(c)) continue;
    if (found || c.kind != Kind::SUM || c.column || weighted(p.groups[group], covered[group]))
      return nullptr;
    found = &c;
  }
  return found;
}

// scale a_i
template <class T>
inline T row_factor(const Problem<T>& p, int64_t i) {
  return p.a ? p.scale * p.a[i] : p.scale;
}

// Computes the log-weights of row i and columns [j0, j0 + n) from their scores s.
template <class T>
void weight_row(const Group<T>& group, int64_t i, int64_t j0, int64_t n, const T* s, T* w) {
  for (int64_t j = 0; j < n; ++j) w[j] = 0;
  for (const Term<T>& term : group.terms) term_row(term, i, j0, n, s, w);
  for (const Test& test : group.tests) test_row(test, i, j0, n, w);
}

// The tests of a group of Roles: 0 for pairs that pass, -inf for others; without a group no pair
// passes.
template <class T>
void mask_row(const Problem<T>& p, int group, const Tile<T>& t, int64_t i, T* w) {
  const T start = group >= 0 ? T(0) : T(-INFINITY);
  for (int64_t j = 0; j < t.n; ++j) w[j] = start;
  if (group < 0) return;
  for (const Test& test : p.groups[static_cast<size_t>(group)].tests)
    test_row(test, i, t.j0, t.n, w);
}

// Multiplies u by e^w in place. Without terms the weights are 0 or -inf, so no exponential is
// needed.
template <class T>
void weigh_row(const Group<T>& group, const T* w, int64_t n, T* u) {
  const T no = -INFINITY;
  if (group.terms.empty()) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) u[j] = w[j] == no ? T(0) : u[j];
  } else {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) u[j] = w[j] == no ? T(0) : u[j] * VecMath::exp(w[j]);
  }
}

// z = theta s + w or, with a pace, theta pace (s - m) + w, with 1 - m for m if theta is negative. z
// is -inf wherever w is, whatever s is there.
template <class T>
void logits_row(const Channel<T>& c, const T* s, const T* w, int64_t n, T* z) {
  const T theta = c.theta, m = c.margin;
  if (theta == T(0)) {
    for (int64_t j = 0; j < n; ++j) z[j] = w ? w[j] : T(0);
  } else if (c.paced()) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      const T log_weight = w ? w[j] : T(0), offset = theta < T(0) ? T(1) - m : m;
      const T v = theta * pace(s[j], m, theta < T(0)) * (s[j] - offset) + log_weight;
      z[j] = log_weight == T(-INFINITY) ? log_weight : v;
    }
  } else if (w == nullptr) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) z[j] = theta * s[j];
  } else {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      const T v = theta * s[j] + w[j];
      z[j] = w[j] == T(-INFINITY) ? w[j] : v;
    }
  }
}

// Computes s = scale a b <x, y> + beta + gamma from the products `dot`, which may be `s`.
template <class T>
void score_row(const Problem<T>& p, int64_t i, int64_t j0, int64_t n, const T* dot, T* s) {
  const T left = row_factor(p, i);
  const T beta = p.beta ? p.beta[i] : T(0);
  const T* b = p.b ? p.b + j0 : nullptr;
  const T* gamma = p.gamma ? p.gamma + j0 : nullptr;
  if (b == nullptr) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) s[j] = dot[j] * left;
  } else {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) s[j] = dot[j] * left * b[j];
  }
  if (gamma) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) s[j] += gamma[j];
  }
  if (p.beta) {
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) s[j] += beta;
  }
}
