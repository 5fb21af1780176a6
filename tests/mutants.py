"""Faults that the normal tests have to catch, one of each kind. A fault replaces one text in the
package by another, and names the tests that must fail."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import contrastloss

PACKAGE = Path(contrastloss.__file__).parent
TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Mutant:
    """``old`` occurs once in the file; ``tests`` are pytest arguments, relative to tests/."""

    kind: str
    file: str
    old: str
    new: str
    tests: str

    def __str__(self) -> str:
        return self.kind


SWEEP = "backends/test_sweep.py"
REFERENCE = "backends/reference/"
MUTANTS = (
    # ---- statistics and their gradients
    Mutant(
        "a factor",
        REFERENCE + "maths.py",
        "return 2.0 * u\n",
        "return 1.9 * u\n",
        f"{SWEEP} -k test_channels",
    ),
    Mutant(
        "a sign",
        REFERENCE + "backward.py",
        "part = block.weighted(channel, live[0] * (channel.sign * slope))",
        "part = block.weighted(channel, live[0] * slope)",
        f"{SWEEP} -k test_channels",
    ),
    Mutant(
        "a dropped mask",
        REFERENCE + "block.py",
        "mask = passed if mask is None else mask & passed",
        "mask = passed",
        f"{SWEEP} -k test_channels",
    ),
    Mutant(
        "a bound that leaves out what lies on it",
        REFERENCE + "block.py",
        "torch.where(value <= bound, 0.0, torch.where(value > bound,",
        "torch.where(value < bound, 0.0, torch.where(value >= bound,",
        f"{SWEEP} -k its_bound",
    ),
    Mutant(
        "a wrong axis",
        REFERENCE + "backward.py",
        'found["col_bias"] = g.sum(1)',
        'found["col_bias"] = g.sum(2)',
        f"{SWEEP} -k test_operands",
    ),
    Mutant(
        "a missing guard of an empty set",
        REFERENCE + "maths.py",
        "return torch.where(lse == NEG_INF, torch.inf, lse)",
        "return lse",
        f"{SWEEP} -k nothing",
    ),
    Mutant(
        "a stale maximum",
        REFERENCE + "forward.py",
        "later = (b[0] > a[0]) | b[0].isnan()",
        "later = (b[0] > 2 * a[0]) | b[0].isnan()",
        f"{SWEEP} -k test_channels",
    ),
    Mutant(
        "a wrong dtype of sums",
        REFERENCE + "block.py",
        "return tensor.to(call.compute_dtype).to(call.stat_dtype)",
        "return tensor.to(call.compute_dtype)",
        f"{SWEEP} -k test_operands",
    ),
    Mutant(
        "a gradient of one side alone",
        REFERENCE + "backward.py",
        'if "y" in needs or ("x" in needs and call.y is None):',
        'if "y" in needs:',
        "losses/test_nt_xent.py -k check_reference",
    ),
    Mutant(
        "the last row of a block left out",
        REFERENCE + "block.py",
        "yield slice(i, min(i + height, m)), slice(j, min(j + width, n))",
        "yield slice(i, min(i + height, m - (m > 300))), slice(j, min(j + width, n))",
        "backends/test_reference.py",
    ),
    Mutant(
        "ids in the dtype that they came in",
        REFERENCE + "block.py",
        "return row.to(torch.int64), col.to(torch.int64)",
        "return row, col",
        "ops/test_ids.py",
    ),
    Mutant(
        "a distance of ids that wraps",
        REFERENCE + "block.py",
        "return ids.clamp_max(torch.iinfo(torch.int64).max - width) + width",
        "return ids + width",
        "ops/test_ids.py",
    ),
    Mutant(
        "norms that overflow",
        "backends/norms.py",
        "size = _power_of_two(top.clamp_min(EPS))",
        "size = torch.ones_like(top)",
        "losses/test_extremes.py ops",
    ),
    Mutant(
        "a radial part of the gradient",
        "backends/norms.py",
        "return torch.addcmul(grad, u, radial, value=-1)",
        "return grad",
        "losses/test_clip.py -k check_reference",
    ),
    Mutant(
        "an index without its offset",
        "ops/merge.py",
        "[torch.where(p.index < 0, -1, p.index + o) for p, o in zip(parts, offsets, strict=True)]",
        "[p.index for p, o in zip(parts, offsets, strict=True)]",
        "ops/test_merge.py",
    ),
    # ---- losses
    Mutant(
        "a mean over rows that do not count",
        "losses/base/loss.py",
        "return losses.sum() / counted.sum().clamp_min(1)",
        "return losses.mean()",
        "losses/test_supcon.py -k check_reductions",
    ),
    Mutant(
        "NaN hidden",
        "losses/base/loss.py",
        "return losses if nan is None else torch.where(nan, torch.nan, losses)",
        "return losses",
        "losses/test_nan.py -k circle",
    ),
    Mutant(
        "a temperature that is not used",
        "losses/base/loss.py",
        "scale = self.temperature.to(dtype).reciprocal()",
        "scale = self.temperature.to(dtype)",
        "losses/test_clip.py -k check_reference",
    ),
    Mutant(
        "an option that does nothing",
        "losses/base/loss.py",
        "return loss if self.loss_weight == 1.0 else self.loss_weight * loss",
        "return loss",
        "losses/test_siglip.py -k check_reference",
    ),
    Mutant(
        "a dropped term",
        "losses/dcl.py",
        "weighted = (weight.detach() if self.detach_weight else weight) * positive",
        "weighted = positive",
        "losses/test_dcl.py -k check_reference",
    ),
    Mutant(
        "an error that is not raised",
        "options.py",
        "if not bound.fits(number):",
        "if False:",
        "losses/test_options.py -k invalid",
    ),
    Mutant(
        "an argument that nobody checks",
        "mining/batch.py",
        "@torch.no_grad()\n@_takes\ndef batch_hard(",
        "@torch.no_grad()\ndef batch_hard(",
        "test_arguments.py -k batch_hard",
    ),
    Mutant(
        "a label that is not ignored",
        "losses/base/label_loss.py",
        "return channel.adapted((*channel.pairs, same(TAKEN)), channel.axis)",
        "return channel",
        "losses/test_ignore_index.py -k supcon",
    ),
    # ---- graphs
    Mutant(
        "a number that a graph holds",
        "ops/check.py",
        "    if torch.compiler.is_compiling():  # one graph",
        "    if False:  # one graph",
        "losses/test_default_compiler.py -k three_graphs",
    ),
    Mutant(
        "a size that a graph holds",
        "losses/alignment_uniformity.py",
        "return log_sum_exp(rows) - log_count(n, rows)",
        "return log_sum_exp(rows) - log_count(len(z), rows)",
        "losses/test_default_compiler.py -k exported",
    ),
    # ---- state
    Mutant(
        "a copy that a compiler drops",
        "ops/copies.py",
        "    return torch.ops.contrastloss.copies(values)\n",
        "    return [value.clone() for value in values]\n",
        "test_state.py -k default_compiler",
    ),
    Mutant(
        "an empty slot that counts",
        "memory/queue.py",
        "numbers.fill_(-1)",
        "numbers.fill_(0)",
        "test_memory.py losses/test_moco.py",
    ),
    Mutant(
        "a queue that wraps too late",
        "memory/queue.py",
        "slots = (self.written + newest) % self.size",
        "slots = (self.written + newest).clamp_max(self.size - 1)",
        "test_memory.py",
    ),
    Mutant(
        "a step in the wrong direction",
        "memory/momentum.py",
        "torch._foreach_lerp_(own, ends, 1 - self.momentum)",
        "torch._foreach_lerp_(own, ends, self.momentum)",
        "test_memory.py",
    ),
    # ---- over ranks
    Mutant(
        "an id shifted over ranks",
        "distributed/peers.py",
        "return numbers + self.rank * _NUMBERS",
        "return numbers",
        "distributed",
    ),
    Mutant(
        "a column gradient that is not summed",
        "distributed/collectives.py",
        "found = _split(grad, ctx.peers, ctx.layout).sum(0).to(ctx.dtype)",
        "found = _split(grad, ctx.peers, ctx.layout)[ctx.peers.rank].to(ctx.dtype)",
        "distributed/test_losses.py -k one_process",
    ),
    Mutant(
        "a gradient without the number of ranks",
        "distributed/collectives.py",
        "return grad * ctx.world, None",
        "return grad, None",
        "distributed/test_losses.py -k one_process",
    ),
    Mutant(
        "a second derivative that is dropped",
        "ops/second.py",
        "if not (torch.is_grad_enabled() and any(value.requires_grad for value in known)):",
        "if True:",
        "distributed/test_losses.py -k second",
    ),
    Mutant(
        "ranks that do not compare",
        "distributed/peers.py",
        "if len({*hashes}) > 1 or FAILED in hashes:",
        "if FAILED in hashes:",
        "distributed/test_fault_table.py -k disagree",
    ),
    # ---- how it runs
    Mutant(
        "products in a narrow dtype",
        "losses/base/scores.py",
        '"compute_dtype": self.compute_dtype,',
        '"compute_dtype": torch.bfloat16,',
        "losses/test_clip.py -k 'check_accuracy or check_autocast'",
    ),
    Mutant(
        "a layout that a fake kernel does not know",
        "backends/call.py",
        "return gradient.to(like.dtype).contiguous()",
        "return gradient.to(like.dtype)",
        "ops/test_layouts.py",
    ),
    Mutant(
        "a backend that is chosen although it is slower",
        "backends/table.py",
        "best = min(times",
        "best = max(times",
        "backends/test_table.py",
    ),
    Mutant(
        "a check that only looks at values",
        "tune/cases.py",
        "return [*(o.detach() for o in outputs), *found]",
        "return [o.detach() for o in outputs]",
        "test_tune.py -k fault_is_found",
    ),
    Mutant(
        "a gradient of the one pass",
        "ops/one_pass.py",
        "ctx.backend.scale(grad.contiguous(), own)",
        "ctx.backend.scale(1.0001 * grad, own)",
        "losses/test_clip.py -k check_reductions",
    ),
    Mutant(
        "a graph that breaks",
        "losses/clip.py",
        "if not sums:",
        "if not sums and by_row.sum() < 1e30:",
        "losses/test_clip.py -k check_compile",
    ),
)


def caught(mutant: Mutant, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the mutant's tests on a copy of the package, in ``folder``, that contains the fault."""
    copy = folder / "contrastloss"
    for path in PACKAGE.rglob("*"):
        other = copy / path.relative_to(PACKAGE)
        if path.suffix in (".py", ".typed") and path != PACKAGE / mutant.file:
            other.parent.mkdir(parents=True, exist_ok=True)
            other.symlink_to(path)
        elif path.suffix == ".so":
            other.symlink_to(path)
    target = copy / mutant.file
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text((PACKAGE / mutant.file).read_text().replace(mutant.old, mutant.new))
    command = [
        Path(sys.executable).parent / "pytest", "-q", "-x", "-p", "no:cacheprovider",
        "-c", TESTS.parent / "pyproject.toml", "--rootdir", TESTS.parent, *words(mutant.tests),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, timeout=280
    )


def words(tests: str) -> list[str]:
    """The pytest arguments, with absolute paths of files and folders."""
    given, _, chosen = tests.partition(" -k ")
    paths = [str(TESTS / word) for word in given.split()]
    return [*paths, *(["-k", chosen.strip("'")] if chosen else [])]
