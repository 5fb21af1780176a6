// The kernels for columns that each row chooses, by element type.
#include "gather.cuh"

#include "launch.h"

namespace contrastloss::cuda {

// The blocks of one launch. More are not needed to keep the device busy and to let all blocks end
// at about the same time.
inline dim3 gather_grid(int64_t items, int64_t per_block) {
  const int64_t most = 64 * int64_t(attribute(cudaDevAttrMultiProcessorCount));
  return dim3(blocks(std::min(items, most * per_block), per_block));
}

template <class E, class T>
struct GatherLaunches {
  static void scores(const GatherPlan<T>& f, T* to, cudaStream_t stream) {
    const int64_t items = f.rows * gather_steps(f.k, kAtOnce * (32 / f.team));
    if (items)
      launch(gather_scores_kernel<E, T>, gather_grid(items, kWarps), kThreads, 0, stream, f, to);
  }

  static void sums(const GatherPlan<T>& f, const GatherSums<T>& s, cudaStream_t stream) {
    const bool column = s.starts != nullptr;
    const int64_t parts = gather_parts(s.vector, f.d, f.team * kPerLane<E>);
    const int64_t items = (column ? f.cols : f.rows) * parts;
    const int64_t shared = f.block ? kThreads * GatherSum<E, T>::kNumbers * sizeof(T) : 0;
    if (items)
      launch(column ? gather_sums_kernel<E, T, true> : gather_sums_kernel<E, T, false>,
             gather_grid(items, f.block ? 1 : kWarps), kThreads, shared, stream, f, s);
  }

  static constexpr GatherKernels<T> all() { return {scores, sums, kPerLane<E>}; }
};

const GatherKernels<float> gather_bf16 = GatherLaunches<__nv_bfloat16, float>::all();
const GatherKernels<float> gather_f16 = GatherLaunches<__half, float>::all();
const GatherKernels<float> gather_f32 = GatherLaunches<float, float>::all();
const GatherKernels<double> gather_f64 = GatherLaunches<double, double>::all();

}  // namespace contrastloss::cuda
