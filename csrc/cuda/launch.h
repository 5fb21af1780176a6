// Kernel launches with error checks.
#pragma once

#include <algorithm>

#include <cuda/device.h>

namespace contrastloss::cuda {

inline void check(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "CUDA: ", cudaGetErrorString(error));
}

inline int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

// Above 48 KiB of shared memory a kernel needs this attribute.
template <class... Parameters>
void allow(void (*kernel)(Parameters...), int64_t shared) {
  if (shared > 48 << 10)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared)));
}

// How many blocks of a kernel the device runs at once.
template <class... Parameters>
int concurrent(void (*kernel)(Parameters...), int threads, int64_t shared) {
  allow(kernel, shared);
  int blocks = 0;
  check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads,
                                                      static_cast<size_t>(shared)));
  return std::max(blocks, 1) * attribute(cudaDevAttrMultiProcessorCount);
}

template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared,
            cudaStream_t stream, const Parameters&... parameters) {
  allow(kernel, shared);
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared);
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, parameters...));
}

inline unsigned blocks(int64_t items, int64_t per_block) {
  return static_cast<unsigned>(std::max<int64_t>((items + per_block - 1) / per_block, 1));
}

}  // namespace contrastloss::cuda
