// Half precision, using the compiler's own type.
#pragma once

struct __half {
  _Float16 value = 0;
  __half() = default;
  explicit __half(float v) : value(static_cast<_Float16>(v)) {}
  operator float() const { return static_cast<float>(value); }
};
