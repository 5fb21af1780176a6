#include "element.cuh"

namespace contrastloss::cuda {
const Kernels<float> f16_kernels = Launches<__half, float>::all();
}  // namespace contrastloss::cuda
