"""The names of info-nce-pytorch (``import info_nce``)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from .. import functional

__all__ = ["InfoNCE", "info_nce"]


def info_nce(
    query: Tensor,
    positive_key: Tensor,
    negative_keys: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    reduction: Literal["mean", "sum", "none"] = "mean",
    negative_mode: Literal["unpaired", "paired"] = "unpaired",
) -> Tensor:
    r"""Cross entropy of each query's positive key among the keys, of cosines over a temperature:

    :math:`\ell_i = -\log \frac{e^{\cos(q_i, p_i) / \tau}}
    {e^{\cos(q_i, p_i) / \tau} + \sum_k e^{\cos(q_i, n_k) / \tau}}`

    The negatives are ``negative_keys`` or, without them, the other rows' positive keys.

    Args:
        query, positive_key: (N, D).
        negative_keys: (M, D) for all queries or, in the mode ``'paired'``, (N, M, D).
        temperature: tau, positive.
        reduction: ``'mean'``, ``'sum'`` or ``'none'``.
        negative_mode: ``'unpaired'`` or ``'paired'``.

    Raises:
        ValueError: shapes or options that do not fit.
    """
    dims = {"unpaired": 2, "paired": 3}
    expected = {"query": 2, "positive_key": 2, "negative_keys": dims.get(negative_mode)}
    keys = {"query": query, "positive_key": positive_key, "negative_keys": negative_keys}
    given = {name: key for name, key in keys.items() if key is not None}
    if expected["negative_keys"] is None:
        raise ValueError(f"negative_mode: got {negative_mode!r}, expected 'unpaired' or 'paired'")
    for name, key in given.items():
        if key.dim() != expected[name]:
            raise ValueError(f"{name}: got {key.dim()} dimensions, expected {expected[name]}")
        if key.shape[-1] != query.shape[-1]:
            got = f"{key.shape[-1]} components"
            raise ValueError(f"{name}: got {got}, expected those of query, {query.shape[-1]}")
        shared = name == "negative_keys" and negative_mode == "unpaired"
        if not shared and len(key) != len(query):
            raise ValueError(f"{name}: got {len(key)} rows, expected those of query, {len(query)}")
    return functional.info_nce(
        query,
        positive_key,
        negative_keys,
        temperature=temperature,
        reduction=reduction,
        in_batch_negatives=negative_keys is None,
    )


class InfoNCE(nn.Module):
    """:func:`info_nce` as a module; see there for the options."""

    def __init__(
        self,
        temperature: float | Tensor = 0.1,
        reduction: Literal["mean", "sum", "none"] = "mean",
        negative_mode: Literal["unpaired", "paired"] = "unpaired",
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.reduction = reduction
        self.negative_mode = negative_mode

    def forward(
        self, query: Tensor, positive_key: Tensor, negative_keys: Tensor | None = None
    ) -> Tensor:
        return info_nce(
            query,
            positive_key,
            negative_keys,
            temperature=self.temperature,
            reduction=self.reduction,
            negative_mode=self.negative_mode,
        )
