// The top-k kernels, by element type.
#include "topk.cuh"

#include "grid.h"
#include "launch.h"

namespace contrastloss::cuda {

template <class T>
void launch_begin(const Lists<T>& lists, cudaStream_t stream) {
  launch(begin_kernel<T>, dim3(blocks(lists.slots(), kThreads)), kThreads, 0, stream, lists);
}

template <class E, class T, bool SAMPLED>
void launch_by(const TopkPlan<T>& f, cudaStream_t stream) {
  constexpr int FN = kTopkCols<T, SAMPLED>;
  const int64_t shared = Shared<T, FN>::bytes(f.plan);
  const auto kernel = candidates_kernel<E, T, SAMPLED>;
  const int rows = std::min(f.lists.rows, f.plan.m - f.lists.i0);
  const Grid g = spread(concurrent(kernel, kThreads, shared), blocks(rows, kTileRows),
                        blocks(f.j1 - f.j0, kTileCols<FN>), f.lists.items);
  const auto size = [](int n) { return static_cast<unsigned>(n); };
  launch(kernel, dim3(size(g.across), size(g.down), size(g.batch)), kThreads, shared, stream, f);
}

template <class E, class T>
void launch_by(const TopkPlan<T>& f, cudaStream_t stream) {
  f.sampled ? launch_by<E, T, true>(f, stream) : launch_by<E, T, false>(f, stream);
}

template <>
void launch_candidates(const TopkPlan<double>& f, Element, cudaStream_t stream) {
  launch_by<double>(f, stream);
}
template <>
void launch_candidates(const TopkPlan<float>& f, Element element, cudaStream_t stream) {
  switch (element) {
    case Element::BF16: return launch_by<__nv_bfloat16>(f, stream);
    case Element::F16: return launch_by<__half>(f, stream);
    default: return launch_by<float>(f, stream);
  }
}

template <class T>
void launch_select(const Lists<T>& lists, bool last, cudaStream_t stream) {
  const int most = std::min(lists.capacity, kSortable<T>);
  int threads = 32;
  while (threads < 256 && 4 * threads < most) threads *= 2;
  const bool shared = 2 * int64_t(lists.k) <= kSortable<T>;
  launch(select_kernel<T>, dim3(static_cast<unsigned>(lists.slots())), threads,
         shared ? most * int64_t(sizeof(Packed<T>)) : 0, stream, lists, last);
}

template void launch_begin(const Lists<float>&, cudaStream_t);
template void launch_begin(const Lists<double>&, cudaStream_t);
template void launch_select(const Lists<float>&, bool, cudaStream_t);
template void launch_select(const Lists<double>&, bool, cudaStream_t);

}  // namespace contrastloss::cuda
