#include "element.cuh"

namespace contrastloss::cuda {
const Kernels<float> bf16_kernels = Launches<__nv_bfloat16, float>::all();
}  // namespace contrastloss::cuda
