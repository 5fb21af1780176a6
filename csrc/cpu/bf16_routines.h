// The fp32 functions of an engine that multiplies bf16 in products P, and leaves other calls to
// another engine. Included once per instruction set.

// Whether rows are multiplied in bf16, without division by their norms: see Norms in call.h.
inline bool packed_as_they_are(const Problem<float>& problem) {
  return problem.x.rounded == Element::BF16 && !problem.x_norm;
}

template <class P, const Engine& OTHER>
struct Bf16Routines {
  template <Visit V>
  static void run(const Problem<float>& problem, int threads, Parallel parallel) {
    const Routines<float>& other = OTHER.f32;
    if (packed_as_they_are(problem)) {
      run_problem<float, P, V>(problem, threads, parallel);
    } else {
      (V == Visit::FORWARD    ? other.forward
       : V == Visit::BACKWARD ? other.backward
                              : other.at_once)(problem, threads, parallel);
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

  // A function of the other engine, whose address no constant can have.
  template <auto ROUTINE, class... Args>
  static void theirs(Args... args) {
    (OTHER.f32.*ROUTINE)(args...);
  }

  static constexpr Routines<float> all() {
    using Of = Routines<float>;
    return {run<Visit::FORWARD>,
            run<Visit::BACKWARD>,
            run<Visit::BOTH>,
            strip<false>,
            strip<true>,
            theirs<&Of::merge_rows>,
            topk,
            theirs<&Of::gather>,
            theirs<&Of::gather_backward>,
            theirs<&Of::sort>,
            theirs<&Of::sort_backward>,
            theirs<&Of::inverse_norms>,
            theirs<&Of::remove_radial>};
  }
};
