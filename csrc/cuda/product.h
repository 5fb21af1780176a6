// Products of PyTorch's library.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <array>

#include "../operands.h"

namespace contrastloss::cuda {

// a (B, M, N) times b (B, N, D), added up and returned in T.
template <class T>
Tensor product(const Tensor& a, const Tensor& b) {
  using torch::stable::detail::from;
  constexpr ScalarType kWide = kScalarType<T>;
  Tensor to = empty(a, {a.size(0), a.size(1), b.size(2)}, kWide);
  if (a.scalar_type() == kWide) {
    std::array<StableIValue, 3> stack{from(a), from(b), from(to)};
    TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::bmm", "out", stack.data(), TORCH_ABI_VERSION));
    return torch::stable::detail::to<Tensor>(stack[0]);
  }
  // PyTorch has this operator on CUDA only
  if (!a.is_cuda()) return product<T>(torch::stable::to(a, kWide), torch::stable::to(b, kWide));
  std::array<StableIValue, 4> stack{from(a), from(b), from(kWide), from(to)};
  TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("aten::bmm", "dtype_out", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace contrastloss::cuda
