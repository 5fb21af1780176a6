// Checks of tensors and lists that operators take in addition to a call's operands. Anyone can call
// a registered operator: no wrong argument may make it read memory outside its tensors.
#pragma once

#include <string>

#include "../tensor.h"

namespace contrastloss::cuda {

template <class Sizes>
std::string shape_text(const Sizes& sizes) {
  std::string text = "(";
  for (const int64_t size : sizes) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + ")";
}

// Checks a tensor that a kernel reads or writes: it is on the device of x, contiguous, and has this
// dtype and shape.
inline void expect(const Tensor& t, const char* name, const Tensor& x, ScalarType dtype,
                   const std::vector<int64_t>& shape) {
  const auto sizes = t.sizes();
  const bool on_device = t.device() == x.device();
  STD_TORCH_CHECK(on_device, name, ": expected the device of x");
  STD_TORCH_CHECK(t.scalar_type() == dtype, name, ": got ", toString(t.scalar_type()),
                  ", expected ", toString(dtype));
  STD_TORCH_CHECK(std::vector<int64_t>(sizes.begin(), sizes.end()) == shape, name, ": got shape ",
                  shape_text(sizes), ", expected ", shape_text(shape));
  STD_TORCH_CHECK(t.is_contiguous(), name, ": not contiguous");
}

template <class T>
T* expected(const Tensor& t, const char* name, const Tensor& x, const std::vector<int64_t>& shape) {
  expect(t, name, x, kScalarType<T>, shape);
  return static_cast<T*>(t.data_ptr());
}
template <class T>
T* expected(const OptionalTensor& t, const char* name, const Tensor& x,
            const std::vector<int64_t>& shape) {
  return t ? expected<T>(*t, name, x, shape) : nullptr;
}

inline void expect_count(const std::vector<Tensor>& list, const char* name, size_t count) {
  STD_TORCH_CHECK(list.size() == count, name, ": got ", list.size(), " tensors, expected ", count);
}

inline void expect_range(const char* name, int64_t got, int64_t least, int64_t most) {
  STD_TORCH_CHECK(got >= least && got <= most, name, ": got ", got, ", expected ", least, " to ",
                  most);
}

}  // namespace contrastloss::cuda
