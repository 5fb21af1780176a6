// The caller's device and stream. The host emulation (tests/cuda_host) replaces this header.
#pragma once

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include "../tensor.h"

#define CL_DISPATCH_KEY CUDA

namespace contrastloss::cuda {

// Makes a tensor's device the current one during its lifetime, and knows PyTorch's current stream
// there.
class Device {
 public:
  explicit Device(const Tensor& t) : guard_(t.get_device_index()) {
    // looked up at run time, so that this library also loads with a torch without CUDA
    using Lookup = AOTITorchError (*)(int32_t, void**);
    static const auto current =
        reinterpret_cast<Lookup>(dlsym(RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
    STD_TORCH_CHECK(current != nullptr, "this torch has no CUDA");
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(current(t.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
};

}  // namespace contrastloss::cuda
