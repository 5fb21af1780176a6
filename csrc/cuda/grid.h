// How the blocks of a grid share the tiles of a problem. No CUDA, no torch.
#pragma once

#include <algorithm>
#include <cstdint>

namespace contrastloss::cuda {

// Block (p, q) visits every across-th row of tiles from p on and every down-th column from q on.
// Partial results of rows have `down` slices, those of columns `across`.
struct Grid {
  int across, down, batch;
};

// Of the grids whose blocks all run at once, that of the shortest longest block and, among these,
// that of the fewest slices.
inline Grid spread(int64_t concurrent, int64_t row_tiles, int64_t col_tiles, int64_t batch) {
  const auto parts = [](int64_t n, int64_t d) { return (n + d - 1) / d; };
  const int64_t wanted = std::max<int64_t>(concurrent / std::max<int64_t>(batch, 1), 1);
  int64_t across = 1, down = 1, longest = INT64_MAX;
  for (int64_t a = 1; a <= std::min(row_tiles, wanted); ++a) {
    const int64_t rows = parts(row_tiles, a), most = std::max<int64_t>(wanted / a, 1);
    // no more slices than shorten it
    const int64_t cols = parts(col_tiles, std::min(col_tiles, most)), d = parts(col_tiles, cols);
    const int64_t path = rows * cols;
    if (path > longest || (path == longest && a + d >= across + down)) continue;
    across = a, down = d, longest = path;
  }
  return {static_cast<int>(across), static_cast<int>(down), static_cast<int>(batch)};
}

}  // namespace contrastloss::cuda
