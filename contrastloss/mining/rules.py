"""Which columns that a search has found are negatives."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..ops import TopK

__all__ = ["Rules", "chosen"]


@dataclass(frozen=True)
class Rules:
    """Which columns are negatives; see :func:`mine_files`."""

    k: int
    skip: int = 0
    range_max: int | None = None
    sampling: Literal["top", "random"] = "top"
    seed: int = 0
    absolute_margin: float | None = None
    relative_margin: float | None = None
    max_score: float | None = None
    min_score: float | None = None
    normalize: bool = True

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k: got {self.k}, expected at least 1")
        if self.skip < 0:
            raise ValueError(f"skip: got {self.skip}, expected at least 0")
        if self.sampling not in ("top", "random"):
            raise ValueError(f"sampling: got {self.sampling!r}, expected 'top' or 'random'")
        if self.range_max is not None and self.range_max < self.skip + self.k:
            expected = f"at least skip + k, {self.skip + self.k}"
            raise ValueError(f"range_max: got {self.range_max}, expected {expected}")
        if self.sampling == "random" and self.range_max is None:
            raise ValueError("range_max: got None, expected a number with sampling='random'")
        for name in ("absolute_margin", "relative_margin", "max_score", "min_score"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name}: got {value}, expected a finite number")

    @property
    def margins(self) -> tuple[float | None, float | None]:
        return self.absolute_margin, self.relative_margin


def chosen(best: TopK, rules: Rules, positives: Tensor | None, bounds: Tensor | None) -> TopK:
    """The k negatives of every query, of the best columns that were found for it."""
    values, index = best
    if rules.range_max is None:
        return TopK(*(v[:, rules.skip : rules.skip + rules.k] for v in (values, index)))
    out = index < 0
    if positives is not None:
        for place in positives.unbind(1):
            out |= index == place[:, None]
    if bounds is not None:
        out |= values > bounds[:, None]
    if rules.min_score is not None:
        out |= values < rules.min_score
    values, index = torch.where(out, -torch.inf, values), torch.where(out, -1, index)
    order = values.argsort(stable=True, dim=1, descending=True)[:, rules.skip : rules.range_max]
    values, index = values.gather(1, order), index.gather(1, order)
    if rules.sampling == "top":
        return TopK(values[:, : rules.k], index[:, : rules.k])
    draw = random.Random(rules.seed)  # nosec B311
    options = (index >= 0).sum(1).clamp_min(rules.k).tolist()
    picks = torch.tensor([sorted(draw.sample(range(n), rules.k)) for n in options]).long()
    picks = picks.reshape(len(options), rules.k)
    short = rules.k - values.shape[1]
    if short > 0:  # the corpus has fewer
        values = torch.nn.functional.pad(values, (0, short), value=-torch.inf)
        index = torch.nn.functional.pad(index, (0, short), value=-1)
    return TopK(values.gather(1, picks), index.gather(1, picks))
