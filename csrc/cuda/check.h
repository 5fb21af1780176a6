// What the operators check of tensors and lists that come beside a call's operands: anybody may
// call a registered operator, and no mistake may read foreign memory.
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

// A tensor that a kernel reads or writes: where x is, contiguous, of that dtype and shape.
inline void expect(const Tensor& t, const char* name, const Tensor& x, ScalarType dtype,
                   const std::vector<int64_t>& shape) {
  const auto sizes = t.sizes();
  const bool on_device = t.device() == x.device();
  STD_TORCH_CHECK(on_device, name, ": expected it on the device of x");
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
