// The kernels of sorting networks, by distribution and dtype.
#include "sort.cuh"

#include "launch.h"

namespace contrastloss::cuda {

template <class T, Swap S>
void launch_by(const SortPlan<T>& plan, bool backward, cudaStream_t stream) {
  const dim3 grid(blocks(plan.rows, plan.teams));
  const int64_t bytes =
      plan.teams * sort_shared(plan.wires, plan.segment, backward) * int64_t(sizeof(T));
  launch(backward ? sort_backward_kernel<T, S> : sort_kernel<T, S>, grid, plan.team * plan.teams,
         bytes, stream, plan);
}

template <class T>
void launch_sort(const SortPlan<T>& plan, Swap swap, bool backward, cudaStream_t stream) {
  switch (swap) {
    case Swap::CAUCHY: return launch_by<T, Swap::CAUCHY>(plan, backward, stream);
    case Swap::LOGISTIC: return launch_by<T, Swap::LOGISTIC>(plan, backward, stream);
    case Swap::LOGISTIC_PHI: return launch_by<T, Swap::LOGISTIC_PHI>(plan, backward, stream);
    case Swap::GAUSSIAN: return launch_by<T, Swap::GAUSSIAN>(plan, backward, stream);
    case Swap::RECIPROCAL: return launch_by<T, Swap::RECIPROCAL>(plan, backward, stream);
    case Swap::OPTIMAL: return launch_by<T, Swap::OPTIMAL>(plan, backward, stream);
  }
}

template void launch_sort(const SortPlan<float>&, Swap, bool, cudaStream_t);
template void launch_sort(const SortPlan<double>&, Swap, bool, cudaStream_t);

}  // namespace contrastloss::cuda
