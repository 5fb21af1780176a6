"""The checks of contrastloss.testing find the faults that they are for; the generated functions and
docstrings are up to date."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import contrastloss
from contrastloss import AdjacencyContrastiveLoss, NTXentLoss, ops
from contrastloss.channel import LSE
from contrastloss.losses import LOSSES, CrossLoss, PairLoss
from contrastloss.testing import CHECKS, Subject, check_loss, dense, example
from contrastloss.testing.docstrings import sources
from contrastloss.testing.functions import functions

PACKAGE = Path(contrastloss.__file__).parent
BY_NAME = {check.__name__: check for check in CHECKS}


class Repulsion(CrossLoss):
    """A loss of a user: the log-sum-exp of all scores of a row, minus the positive's score."""

    temperature: float | Tensor = 0.2

    def channels(self):
        return (LSE(),)

    def combine(self, everything, positive, scores):
        return everything - positive

    @staticmethod
    def reference(x, y, *, scale, bias):
        s = scale * (x @ y.mT) + bias
        return s.logsumexp(1) - s.diagonal()


def test_a_loss_of_ones_own(device):
    check_loss(Repulsion, device=device)


class Noisy(Repulsion):
    def combine(self, everything, positive, scores):
        return (everything - positive) * (1 + 3e-5)


class Rounded(Repulsion):
    def combine(self, everything, positive, scores):
        return (everything.bfloat16() - positive.bfloat16()).to(everything.dtype)


class Detached(Repulsion):
    def combine(self, everything, positive, scores):
        return everything - positive.detach()


class Forgetful(Repulsion):
    def reduce(self, losses, counted=None, nan=None):
        return losses.mean() if self.reduction != "none" else losses


class Ordered(Repulsion):
    def combine(self, everything, positive, scores):
        return (everything - positive) * torch.arange(1, len(positive) + 1, device=positive.device)

    @staticmethod
    def reference(x, y, *, scale, bias):
        return Repulsion.reference(x, y, scale=scale, bias=bias) * torch.arange(1, len(x) + 1)


class Naive(Repulsion):
    def combine(self, everything, positive, scores):
        return torch.log(everything.exp()) - positive


class Breaking(Repulsion):
    def combine(self, everything, positive, scores):
        return everything - positive if float(positive.sum()) < 1e9 else positive


class Blind(Repulsion):
    """A loss that scales some entries of x by their position, which its reference does not do."""

    def evaluate(self, scores, *ids):
        scores.x = scores.x * (1.0 + 0.1 * torch.eye(*scores.x.shape, dtype=scores.x.dtype))
        return super().evaluate(scores, *ids)


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (Noisy, "check_reference"),
        (Detached, "check_gradients"),
        (Noisy, "check_accuracy"),
        (Rounded, "check_low_precision"),
        (Forgetful, "check_reductions"),
        (Forgetful, "check_shapes"),
        (Ordered, "check_permutation"),
        (Naive, "check_degenerate"),
        (Blind, "check_reference"),
        (Breaking, "check_compile"),
    ],
)
def test_a_fault_is_found(cls, name):
    BY_NAME[name](Subject(Repulsion))
    with pytest.raises((AssertionError, RuntimeError)):
        BY_NAME[name](Subject(cls))


def test_the_blocks_of_every_loss_are_checked(monkeypatch):
    """A wrong merge of blocks is found in all losses that have statistics, which docs/losses.md
    names, and in no others."""
    page = (PACKAGE.parent / "docs/losses.md").read_text()
    named = dict(re.findall(r"^### (\w+)\n.*?^- Channels: (.*?)$", page, re.MULTILINE | re.DOTALL))
    kinds = re.compile("LSE|SUM|EXPECT|MAX")
    right, found = ops.merge, {}

    def wrong(channel, values, offsets=None):
        merged = right(channel, values, offsets)
        first, *rest = merged if isinstance(merged, tuple) else [merged]
        first = first * torch.linspace(1.01, 1.2, first.shape[-1], dtype=first.dtype)
        return type(merged)(first, *map(torch.zeros_like, rest)) if rest else first

    monkeypatch.setattr(ops, "merge", wrong)
    for cls in LOSSES.values():
        if cls is not AdjacencyContrastiveLoss:  # it takes tuples
            try:
                BY_NAME["check_sharded"](Subject(cls, backend="reference"))
            except AssertionError:
                found[cls.__name__] = True
            else:
                found[cls.__name__] = False
    assert found == {name: bool(kinds.search(named[name])) for name in found}
    assert sum(found.values()) > 40


def test_the_message_names_loss_check_and_backend():
    with pytest.raises(AssertionError, match=r"^Noisy, check_reference on reference: .*rows"):
        check_loss(Noisy, backends=["reference"])


def test_every_check_is_in_the_list():
    from contrastloss.testing import checks

    assert {n for n in dir(checks) if n.startswith("check_")} == set(BY_NAME)


def test_a_named_backend_that_cannot_serve_is_an_error(monkeypatch):
    from contrastloss.backends import cpu

    monkeypatch.setattr(cpu, "missing", lambda: "nobody built it")
    with pytest.raises(RuntimeError, match="nobody built it"):
        check_loss(NTXentLoss, backends=["cpu"])


class TestExample:
    def test_is_repeatable(self):
        draws = [example(NTXentLoss, 5, 3, torch.Generator().manual_seed(1)) for _ in range(2)]
        assert all(map(torch.equal, *draws))

    def test_asks_the_class(self):
        class Own(NTXentLoss):
            @staticmethod
            def example(n, d, generator):
                return torch.ones(n, d), torch.zeros(n, d)

        x, y = example(Own, 5, 3, torch.Generator())
        assert x.shape == (5, 3)
        assert x.all()
        assert not y.any()

    def test_says_what_it_needs(self):
        class Odd(PairLoss):
            temperature: float = 0.1

            def forward(self, anchors, others):
                pass

        with pytest.raises(
            TypeError, match=r"^Odd: forward takes \['anchors', 'others'\], expected"
        ):
            example(Odd, 5, 3, torch.Generator())


def test_dense_is_the_textbook_formula():
    # s = identity / 0.5, so each row gives log(1 + e^-2)
    rows, counted = dense(Repulsion(0.5), torch.eye(2), torch.eye(2))
    want = torch.tensor(-2.0).exp().log1p()
    torch.testing.assert_close(rows, want.expand(2))
    assert counted.all()


# ---- what is written -----------------------------------------------------------------------------


def test_what_is_written_is_current():
    for path, text in (sources() | {PACKAGE / "functional.py": functions()}).items():
        assert path.read_text() == text, f"{path}: run `python -m contrastloss.testing write`"


def test_the_command_writes_them(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "contrastloss.testing"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "usage: python -m contrastloss.testing write" in done.stderr


USER = """
from torch import Tensor, nn
from contrastloss import CLIPLoss, InfoNCELoss
from contrastloss.functional import clip, info_nce, supcon

def right(x: Tensor, labels: Tensor) -> Tensor:
    a: Tensor = clip(x, x, temperature=0.1, reduction="none")
    b: Tensor = info_nce(x, x, x, temperature=nn.Parameter(x), normalize=False, logit_scale=3.0)
    loss, stats = supcon(x, labels, variant="in", return_stats=True)
    c: Tensor = stats["accuracy"]
    d = CLIPLoss(temperature=0.1, reduction="sum")
    e = InfoNCELoss(0.2)
    return a + b + loss + c
"""
WRONG = {
    "clip(x, x, temperatur=0.1)": "call-overload",
    "clip(x, x, 0.1)": "call-overload",
    'clip(x, x, reduction="average")': "call-overload",
    "supcon(x)": "call-overload",
    'CLIPLoss(reduction="average")': "arg-type",
    "CLIPLoss(beta=1.0)": "call-arg",
}


@pytest.mark.extra
def test_a_type_checker_understands_the_package(tmp_path):
    program = tmp_path / "program.py"
    lines = [f"    {call}" for call in WRONG]
    program.write_text(USER + "\ndef wrong(x: Tensor) -> None:\n" + "\n".join(lines) + "\n")
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--no-error-summary", "--follow-imports=silent",
            "--config-file=", f"--cache-dir={tmp_path}", str(program),
        ],
        capture_output=True, text=True, timeout=300, cwd=PACKAGE.parent,
    )  # fmt: skip
    first = USER.count("\n") + 3
    found = {}
    for line in done.stdout.splitlines():
        if ": error: " in line:
            found.setdefault(int(line.split(":")[1]), []).append(line)
    assert set(found) == set(range(first, first + len(WRONG))), done.stdout + done.stderr
    for (call, code), number in zip(WRONG.items(), sorted(found), strict=True):
        assert any(f"[{code}]" in line for line in found[number]), f"{call}: {found[number]}"
