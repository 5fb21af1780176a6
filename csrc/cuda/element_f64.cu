#include "element.cuh"

namespace contrastloss::cuda {
const Kernels<double> f64_kernels = Launches<double, double>::all();
}  // namespace contrastloss::cuda
