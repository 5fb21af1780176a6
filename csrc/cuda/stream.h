// PyTorch's current stream of a device, from whichever torch has loaded this library. Host code,
// and the same code in the host emulation.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "../tensor.h"

// In libtorch_cpu from torch 2.13 on; null with an older torch.
extern "C" __attribute__((weak)) AOTITorchError torch_stream_native_handle(StreamHandle stream,
                                                                           void** handle);

namespace contrastloss::cuda {

using CurrentStream = AOTITorchError (*)(int32_t device, void** stream);

// An older torch has it in libtorch_cuda, which it loads for itself alone: dlsym(RTLD_DEFAULT) does
// not see its symbols, its own handle does.
inline CurrentStream stream_of_libtorch_cuda() {
  void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  if (library == nullptr) return nullptr;
  return reinterpret_cast<CurrentStream>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
}

// Where streams come from; null: this torch has no CUDA.
inline const char* stream_source() {
  if (torch_stream_native_handle != nullptr) return "torch_stream_native_handle";
  return stream_of_libtorch_cuda() != nullptr ? "libtorch_cuda.so" : nullptr;
}

inline void* current_stream(int32_t device) {
  void* native = nullptr;
  if (torch_stream_native_handle != nullptr) {
    StreamHandle stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_stream(device, &stream));
    const AOTITorchError error = torch_stream_native_handle(stream, &native);
    TORCH_ERROR_CODE_CHECK(aoti_torch_delete_stream(stream));
    TORCH_ERROR_CODE_CHECK(error);
    return native;
  }
  static const CurrentStream current = stream_of_libtorch_cuda();
  STD_TORCH_CHECK(current != nullptr, "this torch has no CUDA");
  TORCH_ERROR_CODE_CHECK(current(device, &native));
  return native;
}

}  // namespace contrastloss::cuda
