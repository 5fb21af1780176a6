// Builds a kernel's plan from a call and its channel program.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "../operands.h"
#include "plan.h"

namespace contrastloss::cuda {

// A call: its operands, its channels with pointers to the first batch item, and the plan, at first
// without views.
template <class T>
struct Call {
  const Operands& o;
  const Problem<T> problem;
  const bool symmetric;
  Plan<T> plan{};

  explicit Call(const Operands& operands)
      : o(operands), problem(read_problem<T>(o, 0)), symmetric(!o.y.has_value()) {
    const int64_t m = o.m(), n = o.n(), d = o.d();
    STD_TORCH_CHECK(m < kMost && n < kMost && d < kMost && o.batch() < 1 << 16,
                    "x: more rows, columns or batch items than a kernel supports");
    STD_TORCH_CHECK(problem.channels.size() <= kMaxChannels && problem.groups.size() <= kMaxGroups,
                    "program: more channels than a kernel supports");
    plan.x = problem.x.data, plan.y = problem.y.data;
    plan.m = static_cast<int>(m), plan.n = static_cast<int>(n), plan.d = static_cast<int>(d);
    plan.symmetric = symmetric;
    const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
    plan.wide = aligned(plan.x) && aligned(plan.y) && d * bytes(problem.x.element) % 16 == 0;
    plan.scale = data<T>(o.scale, "scale", 1);
    plan.a = problem.a, plan.b = problem.b, plan.beta = problem.beta, plan.gamma = problem.gamma;
    for (const Group<T>& group : problem.groups) add(group);
  }

  // Tiles read 16 bytes at a time.
  void expect_wide() const {
    STD_TORCH_CHECK(plan.wide, "x, y: expected rows that begin at multiples of 16 bytes, got ",
                    plan.d, " features");
  }

  int64_t batch() const { return o.batch(); }
  int64_t length(bool column) const { return column ? o.n() : o.m(); }

  // Whether (i, j) and (j, i) have the same score, tests and weight. Only pointers are compared,
  // since the values are on the device.
  bool mirrors() const {
    if (!symmetric || problem.a != problem.b || problem.beta != problem.gamma) return false;
    for (const Group<T>& g : problem.groups) {
      for (const Test& t : g.tests)
        if (t.op == Compare::LT || t.row != t.col) return false;
      for (const Term<T>& t : g.terms) {
        if (t.of_one_axis() || t.row != t.col) return false;
        if (t.row_ids != t.col_ids) return false;
      }
    }
    return true;
  }

  // A view of channel c, without an axis so far. An existing view with the same numbers is shared
  // if `free(view)`, that is, if it does not use this axis yet.
  template <class Free>
  View<T>& view(const Channel<T>& c, bool transposed, const Free& free) {
    View<T> made{};
    made.formula = static_cast<short>(formula(c.kind, c.psi));
    made.group = static_cast<short>(c.group);
    made.column = c.column;
    made.transposed = transposed;
    made.row_part = made.col_part = made.row_stats = made.col_stats = -1;
    made.theta = c.theta, made.sign = c.sign, made.margin = c.margin;
    made.shift = c.shift;
    for (int k = 0; k < plan.views && !c.shift; ++k)
      if (alike(plan.view[k], made) && free(plan.view[k])) return plan.view[k];
    plan.turned = plan.turned || transposed;
    return plan.view[plan.views++] = made;
  }

  // Chooses the kernels for the views, and sorts the views in the order of these kernels.
  Special special() {
    std::vector<View<T>> views(plan.view, plan.view + plan.views);
    for (const View<T>& v : views)
      if (v.transposed || v.shift || v.margin == v.margin || v.theta == T(0) ||
          plan.pairs[v.group].term_count())
        return Special::NONE;
    if (plan.ids > kSpecialIds) return Special::NONE;
    std::stable_sort(views.begin(), views.end(),
                     [](const View<T>& u, const View<T>& v) { return u.formula < v.formula; });
    const auto are = [&](std::initializer_list<int> formulas) {
      return std::equal(views.begin(), views.end(), formulas.begin(), formulas.end(),
                        [](const View<T>& v, int f) { return v.formula == f; });
    };
    const Special found = are({kLse})              ? Special::LOG
                          : are({kLse, kId})       ? Special::LOG_AND_SUM
                          : are({kLse, kOne, kId}) ? Special::LOG_AND_SUMS
                          : are({kLse, kLse})      ? Special::TWO_LOGS
                          : are({kLse, kLse, kId}) ? Special::TWO_LOGS_AND_SUM
                          : are({kId, kSoftplus})  ? Special::SUM_AND_SOFTPLUS
                                                   : Special::NONE;
    if (found != Special::NONE) std::copy(views.begin(), views.end(), plan.view);
    return found;
  }

 private:
  static constexpr int64_t kMost = (int64_t(1) << 31) - 512;  // leaves room for a tile in int32

  static bool alike(const View<T>& u, const View<T>& v) {
    const bool same_margin = u.margin == v.margin || (u.margin != u.margin && v.margin != v.margin);
    return u.formula == v.formula && u.group == v.group && u.transposed == v.transposed &&
           u.theta == v.theta && u.sign == v.sign && same_margin && !u.shift;
  }

  void add(const Group<T>& group) {
    Pairs& pairs = plan.pairs[plan.groups++];
    pairs.test = plan.tests;
    for (const Test& test : group.tests) add(test);
    pairs.tests_end = plan.tests;
    pairs.term = plan.terms;
    for (const Term<T>& term : group.terms) {
      STD_TORCH_CHECK(plan.terms < kMaxTerms, "program: more weights than a kernel supports");
      Weight<T>& weight = plan.term[plan.terms++];
      weight = {term.kind, static_cast<int>(term.extent), plan.tests, term.value, term.row,
                term.col};
      for (size_t k = 0; k < term.row_ids.size(); ++k)
        add(Test{Compare::NE, term.row_ids[k], term.col_ids[k], 0});
    }
    pairs.terms_end = plan.terms;
  }
  void add(const Test& test) {
    STD_TORCH_CHECK(plan.tests < kMaxTests, "program: more tests than a kernel supports");
    plan.test[plan.tests++] = {test.op, test.row || test.col ? slot(test) : -1, test.width};
  }
  // The slot of a test's ids; tests on the same ids share one.
  int slot(const Test& test) {
    for (int k = 0; k < plan.ids; ++k)
      if (plan.id[k].row == test.row && plan.id[k].col == test.col) return k;
    STD_TORCH_CHECK(plan.ids < kMaxIds, "program: more ids than a kernel supports");
    plan.id[plan.ids] = {test.row, test.col};
    return plan.ids++;
  }
};

}  // namespace contrastloss::cuda
