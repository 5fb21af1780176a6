// What Python asks of the library before the first call: see missing() in backends/cuda.py.
#include <cuda_runtime.h>

#include "stream.h"

#define CL_EXPORT extern "C" __attribute__((visibility("default")))

// Where streams come from; null: this torch has no CUDA.
CL_EXPORT const char* contrastloss_cuda_stream_source() {
  return contrastloss::cuda::stream_source();
}

// 1000 major + 10 minor, of the CUDA that the driver serves, 0 without a driver, and of the runtime
// that is linked.
CL_EXPORT int contrastloss_cuda_driver() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}
CL_EXPORT int contrastloss_cuda_runtime() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}
