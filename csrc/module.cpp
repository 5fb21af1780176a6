// contrastloss._C: build information, CPU features, and the channel maths for tests. No torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include "channel.h"

namespace py = pybind11;

namespace contrastloss {
namespace {

std::vector<std::string> words(const char* text) {
  std::istringstream stream(text);
  std::vector<std::string> found;
  for (std::string word; stream >> word;) found.push_back(word);
  return found;
}

py::dict build_info() {
  py::dict info;
#ifdef __clang__
  info["compiler"] = "clang";
#else
  info["compiler"] = "gcc";
#endif
  info["compiler_version"] = __VERSION__;
  info["cxx_standard"] = static_cast<long>(__cplusplus);
  info["flags"] = CL_BUILD_FLAGS;
  info["cpu_isas"] = py::tuple(py::cast(words(CL_CPU_ISAS)));
  info["cuda_architectures"] = py::tuple(py::cast(words(CL_CUDA_ARCHITECTURES)));
  return info;
}

#if defined(__x86_64__) || defined(__i386__)
// AMX needs a CPU that has it (leaf 7) and an operating system that saves the tile state (bits 17
// and 18 of XCR0).
bool has_amx_bf16() {
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  const unsigned amx = 1u << 22 | 1u << 24;  // amx_bf16, amx_tile
  if ((edx & amx) != amx) return false;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & 1u << 27)) return false;  // osxsave
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low >> 17 & 3) == 3;
}
#endif

std::vector<std::string> cpu_capability() {
  std::vector<std::string> found;
  [[maybe_unused]] const auto note = [&](const char* name, bool present) {
    if (present) found.push_back(name);
  };
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  note("sse4.2", __builtin_cpu_supports("sse4.2"));
  note("avx", __builtin_cpu_supports("avx"));
  note("avx2", __builtin_cpu_supports("avx2"));
  note("fma", __builtin_cpu_supports("fma"));
  note("avx512f", __builtin_cpu_supports("avx512f"));
  note("avx512bw", __builtin_cpu_supports("avx512bw"));
  note("avx512dq", __builtin_cpu_supports("avx512dq"));
  note("avx512vl", __builtin_cpu_supports("avx512vl"));
  note("avx512_bf16", __builtin_cpu_supports("avx512bf16"));
  note("amx_bf16", has_amx_bf16());
#elif defined(__aarch64__) && defined(__linux__)
  // HWCAP_ASIMD, HWCAP2_BF16 of the kernel's interface; older headers lack the second
  note("neon", getauxval(AT_HWCAP) >> 1 & 1);
  note("bf16", getauxval(AT_HWCAP2) >> 14 & 1);
#endif
  return found;
}

struct NamedPsi {
  const char* name;
  double (*value)(double);
  double (*slope)(double);
};

template <Psi P>
constexpr NamedPsi named(const char* name) {
  return {name, [](double u) { return psi<P>(u); }, [](double u) { return dpsi<P>(u); }};
}

#define CL_NAMED(P, name) named<Psi::P>(name),
constexpr NamedPsi kPsi[] = {CL_EACH_PSI(CL_NAMED)};
#undef CL_NAMED

const NamedPsi& find_psi(const std::string& name) {
  std::string known;
  for (const NamedPsi& one : kPsi) {
    if (name == one.name) return one;
    known += std::string(known.empty() ? "" : ", ") + one.name;
  }
  throw py::value_error("psi: got '" + name + "', expected one of " + known);
}

// The exception that a signal handler raised while an operator ran, until the operator has
// returned.
struct Raised {
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
} raised;

// Runs the handlers of pending signals, on Python's main thread. Returns whether one of them
// raised. Native code that does not link Python calls this function by its address. A thread that
// Python does not know runs no handlers, and does not wait for the interpreter lock.
int run_signal_handlers() {
  if (!Py_IsInitialized() || !PyGILState_GetThisThreadState()) return 0;
  const PyGILState_STATE state = PyGILState_Ensure();
  const int stop = PyErr_CheckSignals() != 0;
  if (stop) PyErr_Fetch(&raised.type, &raised.value, &raised.traceback);
  PyGILState_Release(state);
  return stop;
}

void raise_from_handler() {
  if (!raised.type) return;
  PyErr_Restore(raised.type, raised.value, raised.traceback);
  raised = {};
  throw py::error_already_set();
}

double log_sum(const std::vector<double>& values) {
  LogSum<double> total;
  for (const double value : values) total.add(value);
  return total.value();
}

}  // namespace
}  // namespace contrastloss

PYBIND11_MODULE(_C, m) {
  using namespace contrastloss;
  m.doc() = "Build information, CPU features, and the channel maths for tests.";
  m.def("build_info", &build_info, "Compiler, flags, instruction sets and CUDA architectures.");
  m.def("cpu_capability", &cpu_capability,
        "Instruction sets of this CPU that the backend can use.");
  m.def(
      "signal_handlers", [] { return reinterpret_cast<uintptr_t>(&run_signal_handlers); },
      "The address of a function that runs pending signal handlers and returns 1 if one raised.");
  m.def("raise_from_handler", &raise_from_handler, "Raises what a signal handler raised, if any.");

  py::module_ channel = m.def_submodule("channel", "csrc/channel.h on one double.");
  channel.def(
      "psi", [](const std::string& name, double u) { return find_psi(name).value(u); },
      py::arg("name"), py::arg("u"));
  channel.def(
      "dpsi", [](const std::string& name, double u) { return find_psi(name).slope(u); },
      py::arg("name"), py::arg("u"));
  channel.def("log_sum", &log_sum, py::arg("values"), "log-sum-exp; -inf for an empty list.");
  channel.def(
      "log_add", [](double a, double b) { return log_sum({a, b}); }, py::arg("a"), py::arg("b"));
}
