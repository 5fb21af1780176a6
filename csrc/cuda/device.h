// The caller's device and stream. The host emulation (tests/cuda_host) replaces this header.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>

#include "../tensor.h"
#include "stream.h"

#define CL_DISPATCH_KEY CUDA

namespace contrastloss::cuda {

// Makes a tensor's device the current one during its lifetime, and knows PyTorch's current stream
// there.
class Device {
 public:
  explicit Device(const Tensor& t)
      : guard_(t.get_device_index()),
        stream_(static_cast<cudaStream_t>(current_stream(t.get_device_index()))) {}
  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

}  // namespace contrastloss::cuda
