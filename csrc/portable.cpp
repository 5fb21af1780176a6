// What a new compiler takes from newer system libraries, made here from what older ones have. So a
// library that is linked for an old glibc (release/glibc.py) also needs no newer libstdc++ than
// that of GCC 8. These definitions are hidden: other libraries keep theirs.
//
// NOLINTBEGIN(bugprone-reserved-identifier, bugprone-std-namespace-modification): they are the
// names of the system's own functions
#if defined(__linux__)
// glibc 2.32: whether there is one thread; libstdc++ then counts references without atomics
extern "C" __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;
#endif

#include <exception>
#include <new>
#include <sstream>

#if defined(__linux__) && defined(__GLIBCXX__)
// GCC 10
template std::basic_ostringstream<char>::basic_ostringstream();
template std::basic_stringstream<char>::basic_stringstream();

// GCC 11
__asm__(".hidden _ZSt28__throw_bad_array_new_lengthv");
namespace std {
void __throw_bad_array_new_length() { throw bad_array_new_length(); }
}  // namespace std

// GCC 11: the copy constructor and the destructor, functions of the library until then, became
// inline and call these two
__asm__(".hidden _ZNSt15__exception_ptr13exception_ptr9_M_addrefEv");
__asm__(".hidden _ZNSt15__exception_ptr13exception_ptr10_M_releaseEv");
extern "C" {
// `to` is memory for an exception_ptr, which has nothing but a pointer.
void contrastloss_copy(void** to, const std::exception_ptr* from) __asm__(
    "_ZNSt15__exception_ptr13exception_ptrC1ERKS0_");
void contrastloss_destroy(void** pointer) __asm__("_ZNSt15__exception_ptr13exception_ptrD1Ev");
}
namespace std::__exception_ptr {
void exception_ptr::_M_addref() noexcept {
  void* copy;
  contrastloss_copy(&copy, this);
}
void exception_ptr::_M_release() noexcept {
  void* copy = _M_exception_object;
  _M_exception_object = nullptr;
  contrastloss_destroy(&copy);
}
}  // namespace std::__exception_ptr
#endif
// NOLINTEND(bugprone-reserved-identifier, bugprone-std-namespace-modification)
