// The accumulators of a forward pass, and the values that its channels return.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "../problem.h"

namespace contrastloss::cpu {

// The accumulators of the channels along rows, or along columns, for positions [first, last) of
// that axis.
template <class T>
class State {
 public:
  State(Problem<T>& p, bool column, int64_t first, int64_t last) {
    const size_t channels = p.channels.size(), n = static_cast<size_t>(last - first);
    doubles_.reserve(2 * channels), tops_.reserve(channels), indices_.reserve(channels);
    for (Channel<T>& c : p.channels) {
      if (c.column != column) continue;
      if (c.kind != Kind::SUM) c.top = tops_.emplace_back(n, kNone).data() - first;
      if (c.kind != Kind::MAX) c.sum = doubles_.emplace_back(n, 0.0).data() - first;
      if (c.kind == Kind::EXPECT) c.moment = doubles_.emplace_back(n, 0.0).data() - first;
      if (c.kind == Kind::MAX) c.index = indices_.emplace_back(n, -1).data() - first;
    }
  }

 private:
  static constexpr T kNone = -std::numeric_limits<T>::infinity();
  std::vector<std::vector<double>> doubles_;
  std::vector<std::vector<T>> tops_;
  std::vector<std::vector<int64_t>> indices_;
};

template <class T>
T log_sum(const Channel<T>& c, int64_t k) {
  if (c.sum[k] == 0) return -std::numeric_limits<T>::infinity();
  return static_cast<T>(std::log(c.sum[k]) + static_cast<double>(c.top[k]));
}

// The first value that a channel returns for position k.
template <class T>
T value(const Channel<T>& c, int64_t k) {
  switch (c.kind) {
    case Kind::LSE: return log_sum(c, k);
    case Kind::SUM: return static_cast<T>(c.sum[k]);
    case Kind::MAX: return c.top[k];
    case Kind::EXPECT: return c.sum[k] == 0 ? T(0) : static_cast<T>(c.moment[k] / c.sum[k]);
  }
  return T(0);
}

}  // namespace contrastloss::cpu
