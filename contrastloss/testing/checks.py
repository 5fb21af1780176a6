"""The properties of a loss, one function each."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import ops
from ..channel import COL, INDEX, MAX, ROW, differs
from ..losses import CrossLoss, PairLoss, TwoViewLoss
from .subject import (
    TEMPERATURES,
    Subject,
    assert_bounded,
    assert_same,
    dense,
    dense_rows,
    excess,
    flat,
    leaves_of,
    run,
    wide,
)  # fmt: skip

#: options, what overrides the temperature in ``forward``, and which tensors of both get gradients
Case = tuple[dict[str, Any], dict[str, Any], list[Tensor]]

# ---- values and gradients -----------------------------------------------------------------------


def check_reference(subject: Subject) -> None:
    """Rows and gradients are the reference's in fp64, whatever gives temperature and bias."""
    inputs = subject.inputs(n=37)
    scalar = nn.Parameter(inputs[0].new_tensor(0.3))
    cases: list[Case] = [
        ({}, {}, []),
        ({"normalize": False, "loss_scale": 2.5}, {}, []),
        ({"temperature": scalar}, {}, [scalar]),
    ]
    if issubclass(subject.cls, PairLoss):
        length = len(dense(subject.loss(), *inputs)[0].flatten())
        length //= 2 if issubclass(subject.cls, TwoViewLoss) else 1
        values = [0.2 + 0.4 * k / length for k in range(length)]
        vector = nn.Parameter(inputs[0].new_tensor(values))
        bias = inputs[0].new_tensor(-0.7).requires_grad_()
        cases += [
            ({"temperature": vector}, {}, [vector]),
            ({}, {"logit_scale": scalar, "logit_bias": bias}, [scalar, bias]),
        ]
    for options, overrides, parameters in cases:
        loss = subject.rows(**options)
        got = run(loss, inputs, parameters, **overrides)
        want = run(dense_rows(loss), inputs, parameters, **overrides)
        what = f"{[*options, *overrides] or 'default'}"
        assert_same(flat(got), flat(want), f"{what}: (rows, gradients)")


def check_gradients(subject: Subject) -> None:
    """gradcheck and gradgradcheck; a second derivative may be a clear error."""
    inputs = leaves_of(subject.inputs(n=4, d=3))
    loss = subject.loss()
    torch.autograd.gradcheck(loss, inputs)
    try:
        torch.autograd.gradgradcheck(loss, inputs)
    except RuntimeError as error:
        if "second derivatives are not implemented" not in str(error):
            raise


def check_accuracy(subject: Subject) -> None:
    """fp32: at most twice the error of dense PyTorch in fp32, at temperatures 1.0 to 0.01."""
    for temperature in subject.temperatures:
        seeds = range(5 if subject.thorough else 3)
        draws = [_excess(subject, torch.float32, temperature, seed) for seed in seeds]
        assert_bounded(draws, f"temperature {temperature}: (rows, gradients)")


def check_low_precision(subject: Subject) -> None:
    """bf16 and fp16: at most twice the error of fp32 dense on the same rounded inputs with its
    result rounded to that dtype. The loss stays fp32."""
    for dtype in (torch.bfloat16, torch.float16):
        for temperature in subject.temperatures:
            draws = [_excess(subject, dtype, temperature, seed) for seed in range(3)]
            assert_bounded(draws, f"{dtype}, temperature {temperature}: (rows, gradients)")


def _excess(subject: Subject, dtype: torch.dtype, temperature: float, seed: int) -> list[float]:
    inputs = subject.inputs(n=129, d=64, dtype=dtype, seed=seed)
    loss = subject.rows(temperature=temperature)
    exact = run(dense_rows(loss), [wide(v) for v in inputs])
    assert exact[0].abs().mean() > 0.1, f"temperature {temperature}: the example's loss is ~ 0"
    plain = run(dense_rows(loss), [wide(v, torch.float32) for v in inputs])
    ours = run(loss, inputs)
    assert ours[0].dtype == torch.float32
    assert all(grad.dtype == dtype for grad in ours[1])
    rounded = [v.to(dtype) for v in flat(plain)]
    return excess(flat(ours), rounded, flat(exact), torch.finfo(torch.float32).eps)


def check_frozen(subject: Subject) -> None:
    """An input alone gets the gradient that it gets beside the others."""
    inputs = subject.inputs()
    _, grads = run(subject.loss(), inputs)
    floating = [k for k, v in enumerate(inputs) if v.is_floating_point()]
    for k, want in zip(floating, grads, strict=True):
        leaf = inputs[k].clone().requires_grad_()
        value = subject.loss()(*inputs[:k], leaf, *inputs[k + 1 :])
        assert_same(torch.autograd.grad(value, leaf)[0], want, f"gradient of input {k} alone")


# ---- where it runs ------------------------------------------------------------------------------


def check_compile(subject: Subject) -> None:
    """One graph without breaks, of any size."""
    backend = "aot_eager" if subject.thorough else "eager"
    for stats in (False, True) if issubclass(subject.cls, PairLoss) else (False,):
        torch.compiler.reset()
        loss = subject.loss(**({"return_stats": True} if stats else {}))
        compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=backend)
        for n in (9, 14):
            inputs = subject.inputs(n=n, dtype=torch.float32)
            if stats:
                got, want = compiled(*inputs)[1], loss(*inputs)[1]
                assert_same([*got.values()], [*want.values()], f"N = {n}, statistics", 1e-6)
            else:
                assert_same(flat(run(compiled, inputs)), flat(run(loss, inputs)), f"N = {n}", 1e-6)


def check_autocast(subject: Subject) -> None:
    """Under autocast nothing but the inputs of products is rounded: the error is of the size that
    rounding the inputs causes, the loss and the gradients stay fp32."""
    inputs, kind = subject.inputs(n=77, dtype=torch.float32), torch.device(subject.device).type
    loss = subject.rows()
    exact = run(dense_rows(loss), [wide(v) for v in inputs])
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast(kind, dtype=dtype):
            ours = run(loss, inputs)
        assert all(v.dtype == torch.float32 for v in flat(ours))
        rounded = [wide(wide(v, dtype)) for v in inputs]
        plain = run(dense_rows(loss), rounded)
        draw = excess(flat(ours), flat(plain), flat(exact), torch.finfo(dtype).eps)
        assert_bounded([draw], f"{dtype}: (rows, gradients)")


def check_scaling(subject: Subject) -> None:
    """A gradient scaler's factor comes out of the gradients as it went in."""
    kind = torch.device(subject.device).type
    inputs = leaves_of(subject.inputs(n=77, dtype=torch.float32))
    scaler = torch.amp.GradScaler(kind, init_scale=2.0**16)
    with torch.autocast(kind, dtype=torch.float16):
        value = subject.loss()(*inputs)
    wanted = [v for v in inputs if v.requires_grad]
    grads = torch.autograd.grad(value, wanted, retain_graph=True)
    scaled = torch.autograd.grad(scaler.scale(value), wanted)
    assert_same([g / 2.0**16 for g in scaled], grads, "unscaled gradient", 1e-6)


def check_copies(subject: Subject) -> None:
    """deepcopy, pickle and state_dict keep the loss, a Parameter for a temperature included."""
    inputs = subject.inputs()
    temperature = nn.Parameter(torch.tensor(0.37, device=subject.device))
    loss = subject.loss(temperature=temperature)
    want = loss(*inputs)
    file = io.BytesIO()
    torch.save(loss, file)
    file.seek(0)
    fresh = subject.loss(temperature=nn.Parameter(torch.ones_like(temperature)))
    fresh.load_state_dict(loss.state_dict())
    for other in (copy.deepcopy(loss), torch.load(file, weights_only=False), fresh):
        assert torch.equal(other(*inputs), want), "a copy computes another loss"
        assert all(p is not temperature for p in other.parameters())
        assert [name for name, _ in other.named_parameters()] == [
            name for name, _ in loss.named_parameters()
        ]


# ---- shapes and data ----------------------------------------------------------------------------


def check_shapes(subject: Subject) -> None:
    """Empty, single and ragged sizes: the reference's values, and 0 of nothing."""
    for n in (1, 2, 77):
        for d in (1, 77):
            inputs, loss = subject.inputs(n=n, d=d), subject.rows()
            got, want = run(loss, inputs), run(dense_rows(loss), inputs)
            assert_same(flat(got), flat(want), f"N = {n}, D = {d}: (rows, gradients)")
    inputs = subject.inputs(n=0, d=5)
    value, grads = run(subject.loss(), inputs)
    assert value.item() == 0.0, f"N = 0: {value.item()}"
    assert all(not grad.any() for grad in grads)


def check_layouts(subject: Subject) -> None:
    """Strided, transposed and expanded views are what a contiguous copy is."""
    inputs = subject.inputs(n=30, d=7)
    views: dict[str, Callable[[Tensor], Tensor]] = {
        "strided": lambda v: v.repeat_interleave(2, 0)[::2],
        "transposed": lambda v: v.mT.contiguous().mT,
        "columns": lambda v: torch.cat([v, v], -1)[..., 3:9],
        "expanded": lambda v: v[:1].expand(v.shape),
    }
    for name, view in views.items():
        seen = [view(v) if v.is_floating_point() else v for v in inputs]
        leaves = [v.detach().requires_grad_(v.is_floating_point()) for v in seen]
        value = subject.loss()(*leaves)
        grads = torch.autograd.grad(value, [v for v in leaves if v.requires_grad])
        want = run(subject.loss(), [v.contiguous() for v in seen])
        assert_same([value.detach(), *grads], flat(want), name)


def check_permutation(subject: Subject) -> None:
    """The order of instances does not matter."""
    n, (value, grads) = 31, run(subject.loss(), inputs := subject.inputs(n=31))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1)).to(subject.device)
    shuffled, moved = run(subject.loss(), [v[order] if len(v) == n else v for v in inputs])
    assert_same(shuffled, value, "value")
    assert_same(moved, [g[order] if len(g) == n else g for g in grads], "gradient")


def check_degenerate(subject: Subject) -> None:
    """Equal rows, duplicates and zero vectors: finite values and gradients, at all temperatures."""
    inputs = subject.inputs(n=12, d=5, dtype=torch.float32)
    cases: dict[str, Callable[[Tensor], Tensor]] = {
        "all equal": lambda v: torch.ones_like(v),
        "duplicates": lambda v: v[torch.arange(len(v)) // 2 * 2],
        "all zero": torch.zeros_like,
        "some zero": lambda v: v * (torch.arange(len(v), device=v.device) % 3 > 0).view(
            -1, *[1] * (v.ndim - 1)
        ),
    }  # fmt: skip
    for name, make in cases.items():
        data = [make(v) if v.is_floating_point() else v for v in inputs]
        for temperature in TEMPERATURES:
            for values in flat(run(subject.rows(temperature=temperature), data)):
                assert values.isfinite().all(), f"{name}, temperature {temperature}: not finite"


# ---- results ------------------------------------------------------------------------------------


def check_reductions(subject: Subject) -> None:
    """'sum' and 'mean' are those of the rows of 'none'; the mean is over the rows that count, or
    the terms that they sum."""
    inputs = subject.inputs()
    rows, counted = subject.rows()(*inputs), dense(subject.loss(), *inputs)[1]
    assert rows.shape == counted.shape
    assert_same(subject.loss(reduction="sum")(*inputs), rows.sum(), "sum")
    assert_same(subject.loss(reduction="mean")(*inputs), rows.sum() / counted.sum(), "mean")


def check_statistics(subject: Subject) -> None:
    """``return_stats`` changes no loss; its values are those of the dense scores."""
    if not issubclass(subject.cls, PairLoss):
        return
    inputs = leaves_of(subject.inputs())
    loss = subject.loss(return_stats=True)
    value, stats = loss(*inputs)
    assert_same(value, subject.loss()(*inputs), "loss")
    assert set(stats) == {"accuracy", "positive", "hardest_negative", "lse"}
    assert not any(v.requires_grad or v.ndim for v in stats.values())
    if not isinstance(loss, (CrossLoss, TwoViewLoss)) or len(inputs) != 2:
        return
    x, y = (F.normalize(v.detach()) if loss.normalize else v.detach() for v in inputs)
    n = len(x)
    if isinstance(loss, TwoViewLoss):
        x = y = torch.cat([x, y])
    s = x @ y.mT / loss.temperature + getattr(loss, "bias", 0.0)
    i = torch.arange(len(x), device=x.device)
    positive = s[i, (i + n) % len(x)]
    hardest = s.masked_fill(i[:, None] % n == i % n, -torch.inf).amax(1)
    lse = (s.fill_diagonal_(-torch.inf) if isinstance(loss, TwoViewLoss) else s).logsumexp(1)
    rows = {"accuracy": positive > hardest, "positive": positive, "hardest_negative": hardest}
    for name, want in {**rows, "lse": lse}.items():
        assert_same(stats[name], want.double().mean(), name)


def check_sharded(subject: Subject) -> None:
    """Statistics of blocks of columns, merged, give the same loss and gradients."""
    inputs = subject.inputs(n=21)
    want = run(subject.loss(), inputs)
    for shards in (2, 5):
        with _sharded(shards):
            got = run(subject.loss(), inputs)
        assert_same(flat(got), flat(want), f"{shards} shards: (loss, gradients)")


@contextmanager
def _sharded(shards: int) -> Iterator[None]:
    """Inside, ``ops.pair_stats`` visits the columns in blocks and merges what it finds."""
    whole = ops.pair_stats

    def pair_stats(x: Tensor, y: Tensor | None, channels: Any, **call: Any) -> list[Any]:
        rows = dict(call.pop("rows", None) or {})
        cols = rows if call.get("cols") is None and y is None else dict(call.get("cols") or {})
        call.pop("cols", None)
        columns = x if y is None else y
        position = {a: torch.arange(v.shape[-2], device=x.device) for a, v in
                    ((ROW, x), (COL, columns))}  # fmt: skip
        if y is None:
            channels = [replace(c, pairs=(*c.pairs, differs(INDEX))) for c in channels]
        if any(INDEX in c.ids for c in channels):
            rows, cols = {INDEX: position[ROW], **rows}, {INDEX: position[COL], **cols}
        forms = frozenset().union(*[c.forms for c in channels])
        parts, offsets = [], []
        blocks = [b for b in position[COL].tensor_split(shards) if len(b)]
        for block in blocks or [position[COL]]:
            own = {
                name: value[..., block, :] if name in forms else value[..., block]
                for name, value in cols.items()
            }
            sided = {k: v[..., block] if k.startswith("col") and v is not None else v
                     for k, v in call.items()}  # fmt: skip
            part = columns[..., block, :]
            parts.append(whole(x, part, channels, rows=rows, cols=own, **sided))
            offsets.append(int(block[0]) if len(block) else 0)
        return [
            ops.merge(c, values, offsets if isinstance(c, MAX) else None)
            if c.axis == ROW else torch.cat(values, -1)
            for c, values in zip(channels, zip(*parts, strict=True), strict=True)
        ]  # fmt: skip

    with mock.patch.object(ops, "pair_stats", pair_stats):
        yield


#: every property, in the order in which a failure explains most
CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_reference, check_gradients, check_reductions, check_shapes, check_layouts, check_frozen,
    check_permutation, check_degenerate, check_accuracy, check_low_precision, check_statistics,
    check_sharded, check_copies, check_autocast, check_scaling, check_compile,
)  # fmt: skip
