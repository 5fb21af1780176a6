#include "element.cuh"

namespace contrastloss::cuda {
const Kernels<float> f32_kernels = Launches<float, float>::all();
}  // namespace contrastloss::cuda
