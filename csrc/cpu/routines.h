// The functions of one engine for one dtype and one class of products. Included once per
// instruction set.

template <class T, class P>
constexpr Routines<T> routines() {
  return {run_problem<T, P, Visit::FORWARD>,
          run_problem<T, P, Visit::BACKWARD>,
          run_problem<T, P, Visit::BOTH>,
          run_strip<T, P, false>,
          run_strip<T, P, true>,
          merge_rows<T>,
          run_topk<T, P>,
          gather<T>,
          gather_backward<T>,
          sort_network<T, false>,
          sort_network<T, true>,
          inverse_norms<T>,
          remove_radial<T>};
}
