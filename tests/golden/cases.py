"""The recorded calls: every loss with its defaults, and with one option or argument changed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from contrastloss import EmbeddingQueue
from contrastloss.losses import LOSSES, Loss
from contrastloss.testing import example

N, D = 45, 37

#: options about where a loss runs, which do not change what it computes
ELSEWHERE = ("backend", "group", "strategy", "equal_sizes", "validate", "gather_negatives")
#: other values of options, where the type does not suggest one
OTHER: dict[str, Any] = {
    "candidates": 9,
    "distribution": "logistic",
    "divisor": 5,
    "eps": 0.1,
    "ignore_index": 0,
    "k": 2,
    "ks": (1, 3),
    "lambda_": 0.02,
    "network": "bitonic",
    "positive_views": 2,
    "positives": 1,
    "t_positive": 4.0,
    "top_k": 5,
    "weight": 0.7,
}
#: the same for one loss; also other options without which an option has no effect
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    **{(name, "art_lambda"): {"distribution": "logistic_phi", "art_lambda": 0.5}
       for name in ("diff_sort", "groco", "topk_cross_entropy")},
    ("clan", "margin"): {"margin": 0.8},
    ("dcl", "detach_weight"): {"detach_weight": False, "weight": 0.7},
    ("mil_contrastive", "released"): {"released": True, "divisor": 2},
    ("mochi", "hardest"): {"hardest": 9, "mixed": 7, "mixed_with_query": 4},
    ("multi_modal", "weights"): {"weights": (1.0, 0.5, 2.0)},
    ("pair_contrastive", "bias"): {"bias": 0.3, "variant": "bce"},
    ("pair_contrastive", "normalize"): {"normalize": False, "distance": "euclidean"},
    ("pair_contrastive", "temperature"): {"temperature": 0.4, "variant": "bce"},
    ("supremix", "weighting"): {"weighting": None},
    ("topk_cross_entropy", "weights"): {"weights": (0.5, 0.25, 0.25)},
    ("triplet", "k"): {"k": 2, "mining": "semihard"},
    ("triplet", "positives"): {"positives": 1, "mining": "all"},
}  # fmt: skip
#: optional arguments without which an option has no effect
ARGUMENTS = {
    **{(name, "in_batch_negatives"): "negatives"
       for name in ("clip", "info_nce", "margin_ranking", "siglip")},
    **{(name, "variant"): "x_ids" for name in ("clip", "info_nce")},
    ("beclr", "threshold"): "stored",
    ("gist", "margin"): "guide",
    ("gist", "margin_strategy"): "guide",
    ("mil_contrastive", "released"): "lengths",
    ("sepclr", "background"): "targets",
    ("sepclr", "label_variance"): "labels",
    ("siglip", "positive_weight"): "x_ids",
    ("supremix", "separate_maxima"): "mixtures",
}  # fmt: skip
#: options for all cases of a loss whose example would give 0, or could not run over ranks
EVERYWHERE: dict[str, dict[str, Any]] = {"triplet": {"margin": 20.0, "mining": "hard"}}


@dataclass(frozen=True)
class Case:
    """A call of a loss with some options and, if given, one optional argument."""

    name: str
    what: str
    options: dict[str, Any]
    argument: str | None = None

    @property
    def cls(self) -> type[Loss]:
        return LOSSES[self.name]

    @property
    def spreads(self) -> bool:
        """Whether the batch can be sharded over ranks. A temperature per row would not be split,
        nor would offsets and places."""
        places = ("mixtures", "negatives_offsets", "positives", "queues")
        whole = "each row" in self.what or self.argument in places
        return "group" in {f.name for f in fields(self.cls)} and not whole

    def inputs(
        self, dtype: torch.dtype, n: int = N, d: int = D
    ) -> tuple[list[Any], dict[str, Any]]:
        g = torch.Generator().manual_seed(0)
        values = [leaf(v, dtype) for v in example(self.cls, n, d, g)]
        names = [p for p in inspect.signature(self.cls.forward).parameters if p != "self"]
        given = dict(zip(names, values, strict=False))
        more = {} if self.argument is None else argument(self.argument, given, d, g)
        if "memory" not in names:
            more.pop("memory", None)
        more = {k: leaf(v, dtype) for k, v in more.items()}
        if "memory" in more and getattr(self.cls(**self.options), "both_sides", False):
            more["memory"] = (more["memory"], more["memory"])
        # an argument that the example has too is replaced
        placed = [more.pop(k, v) for k, v in zip(names, values, strict=False)]
        return placed + values[len(names) :], more


def leaf(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, tuple):
        return tuple(leaf(v, dtype) for v in value)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    if value.ndim == 0:
        return value.float().requires_grad_()
    return value.to(dtype).requires_grad_()


def cases(name: str) -> Iterator[Case]:
    """The cases of one loss: all options and all optional arguments of forward, one at a time."""
    cls, base = LOSSES[name], EVERYWHERE.get(name, {})
    yield Case(name, "default", base)
    left_out = {*ELSEWHERE, *getattr(cls, "without", ())}
    for field in fields(cls):
        if field.name not in left_out:
            for options in alternatives(name, field):
                what = f"{field.name} = {shown(options[field.name])}"
                yield Case(name, what, base | options, ARGUMENTS.get((name, field.name)))
    made = example(cls, N, D, torch.Generator())
    if "temperature" in cls.VECTORS:
        tau = nn.Parameter(torch.linspace(0.1, 0.4, made[0].shape[:-1].numel()))
        yield Case(name, "temperature of each row", base | {"temperature": tau})
    given = len(made)
    for parameter in list(inspect.signature(cls.forward).parameters.values())[1 + given :]:
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in left_out:
            yield Case(name, f"{parameter.name} given", base, parameter.name)


def shown(value: Any) -> str:
    return f"tensor {value.item():g}" if isinstance(value, Tensor) else repr(value)


def alternatives(name: str, field: Field) -> list[dict[str, Any]]:
    """The option with values other than the default: all of them, or one number."""
    key, kind, default = field.name, str(field.type), field.default
    default = EVERYWHERE.get(name, {}).get(key, default)
    found: list[dict[str, Any]] = []
    if (name, key) in OPTIONS:
        found.append(OPTIONS[name, key])
    elif "Literal" in kind:
        return [{key: v} for v in re.findall(r"'(\w+)'", kind.replace('"', "'")) if v != default]
    elif kind == "bool":
        found.append({key: not default})
    elif key in OTHER and not (key == "weight" and default):
        found.append({key: OTHER[key]})
    else:
        found.append({key: default + 1 if isinstance(default, int) else 1.25 * default or 0.3})
    if "Tensor" in kind or kind == "Temperature":
        found.append(found[0] | {key: nn.Parameter(torch.tensor(found[0][key]))})
    return found


def queue(like: Tensor) -> EmbeddingQueue:
    """A queue with eleven slots, of which nine are filled."""
    g = torch.Generator().manual_seed(1)
    found = EmbeddingQueue(11, like.shape[-1], labels=True, ids=True, dtype=like.dtype)
    rows = normalize(torch.randn(9, like.shape[-1], generator=g, dtype=torch.float64))
    found.enqueue(rows.to(like.dtype), torch.arange(9) % 4, ids=torch.arange(9))
    return found


def mixtures(labels: Tensor) -> tuple[Tensor, ...]:
    """A negative of every second row, and every other row's positive of all."""
    n = len(labels)
    one, other = (torch.arange(n) + k for k in (0, 3))
    places = torch.stack([one, (one + 7) % n], 1), torch.stack([other % n, (one + 9) % n], 1)
    share = torch.tensor([0.3, 0.6]).expand(n, 2)
    mixed = torch.stack([0.3 * labels + 0.7 * labels[places[1][:, 0]], 1.0 * labels], 1)
    return *places, share, mixed, torch.tensor([False, True]).expand(n, 2)


def argument(name: str, given: dict[str, Any], d: int, g: torch.Generator) -> dict[str, Any]:
    """The named optional argument, to fit the other inputs, with other arguments that it needs."""
    first = next(iter(given.values()))
    n, prototypes = len(first), given.get("prototypes", first)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    def flags(*shape: int) -> Tensor:
        return torch.rand(shape, generator=g) < 0.7

    makers: dict[str, Callable[[], Any]] = {
        "center": lambda: 0.1 * normal(len(prototypes)).float(),
        "crops": lambda: normal(n, 3, d),
        "density": lambda: 0.1 + 0.2 * normal(len(prototypes)).float().abs(),
        "guide": lambda: (normal(n, 7), normal(n, 7)),
        "hidden": lambda: flags(n),
        "labels": lambda: torch.arange(n) % 5,
        "lengths": lambda: torch.arange(n) % first.shape[1] + 1,
        "log_q": lambda: normal(n).float(),
        "logit_bias": lambda: torch.tensor(-0.7),
        "logit_scale": lambda: torch.tensor(7.5),
        "mask": lambda: flags(n),
        "mixtures": lambda: mixtures(given["labels"]),
        "negatives": lambda: normal(n, 5, d),
        "positives": lambda: (7 * torch.arange(n) + 3) % n - 1,
        "queues": lambda: (queue(first), queue(first)),
        "rehearsal": lambda: flags(n),
        "row_weight": lambda: normal(n).float().abs(),
        "stored": lambda: normal(7, d),
        "target_scale": lambda: torch.tensor(9.0),
        "targets": lambda: flags(n),
        "teacher_prototypes": lambda: normal(len(prototypes), d),
        "x_log_q": lambda: normal(n).float(),
        "x_negatives": lambda: normal(5, d),
        "v_bias": lambda: normal(1),
        "valid": lambda: flags(*first.shape[:2]),
        "weights": lambda: normal(n).abs(),
        "y_prototypes": lambda: normal(len(prototypes), d),
    }
    if name in makers:
        return {name: makers[name]()}
    if name in ("x_ids", "y_ids"):
        return {"x_ids": torch.arange(n) // 3, "y_ids": torch.arange(n) // 2}
    if name == "negatives_log_q":
        return {"negatives": normal(n, 5, d), name: normal(n, 5).float()}
    if name == "negatives_mask":
        return {"negatives": normal(n, 5, d), name: flags(n, 5)}
    if name == "negatives_ids":
        ids = {"ids": torch.arange(n), name: torch.arange(5 * n).view(n, 5) % n}
        return {"negatives": normal(n, 5, d), **ids}
    if name == "negatives_offsets":
        return {"negatives": normal(3 * n, d), name: 3 * torch.arange(n + 1)}
    held = next((k for k in given if k in ("queue", "bank")), "memory")
    like = first.float() if "image" in given else first  # pooled embeddings are fp32
    found = {held: queue(like), **({"bank_labels": None} if held == "bank" else {})}
    return found | ({"ids": torch.arange(n) // 2} if name == "ids" else {})
