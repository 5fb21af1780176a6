// The fp32 functions of an engine that multiplies bf16 in products P, and leaves other calls to
// another engine. Included once per instruction set.

// Whether rows are multiplied in bf16, without division by their norms: see Norms in call.h.
inline bool packed_as_they_are(const Problem<float>& problem) {
  return problem.x.rounded == Element::BF16 && !problem.x_norm;
}

template <class P, const Engine& OTHER>
struct Bf16Routines {
  template <bool BACKWARD>
  static void run(const Problem<float>& problem, int threads, Parallel parallel) {
    if (packed_as_they_are(problem)) {
      run_problem<float, P, BACKWARD>(problem, threads, parallel);
    } else {
      (BACKWARD ? OTHER.f32.backward : OTHER.f32.forward)(problem, threads, parallel);
    }
  }

  template <bool BACKWARD>
  static void strip(const Problem<float>& problem, const Strip<float>& strip) {
    if (packed_as_they_are(problem)) {
      run_strip<float, P, BACKWARD>(problem, strip);
    } else {
      (BACKWARD ? OTHER.f32.strip_backward : OTHER.f32.strip_forward)(problem, strip);
    }
  }

  static void topk(const Problem<float>& problem, const Selection<float>& wanted, int threads,
                   Parallel parallel) {
    if (packed_as_they_are(problem)) {
      run_topk<float, P>(problem, wanted, threads, parallel);
    } else {
      OTHER.f32.topk(problem, wanted, threads, parallel);
    }
  }

  static constexpr Routines<float> all() {
    Routines<float> found = routines<float, VectorProducts<float>>();
    found.forward = run<false>, found.backward = run<true>;
    found.strip_forward = strip<false>, found.strip_backward = strip<true>;
    found.topk = topk;
    return found;
  }
};
