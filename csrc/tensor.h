// The only file that includes torch. It uses the stable ABI, so one build works with torch 2.10 and
// later.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace contrastloss {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

template <class T>
constexpr ScalarType kScalarType = sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float;

inline void require_device(const Tensor& t, const char* name, const Tensor& x) {
  const bool same = t.device() == x.device();
  STD_TORCH_CHECK(same, name, ": expected the device of x");
}

// Anyone can call an operator: no wrong argument may make it read memory outside its tensors.
inline void require(const Tensor& t, const char* name, ScalarType dtype, int64_t numel) {
  STD_TORCH_CHECK(t.scalar_type() == dtype, name, ": wrong dtype");
  STD_TORCH_CHECK(t.is_contiguous(), name, ": not contiguous");
  STD_TORCH_CHECK(t.numel() == numel, name, ": got ", t.numel(), " elements, expected ", numel);
}

inline void require(const Tensor& t, const char* name, const Tensor& x, ScalarType dtype,
                    int64_t numel) {
  require_device(t, name, x);
  require(t, name, dtype, numel);
}

template <class T>
const T* data(const OptionalTensor& t, const char* name, int64_t numel) {
  if (!t.has_value()) return nullptr;
  require(*t, name, kScalarType<T>, numel);
  return static_cast<const T*>(t->data_ptr());
}

}  // namespace contrastloss
