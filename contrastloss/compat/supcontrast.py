"""The loss of SupContrast (``losses.py`` of the repository; it is in no package)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import ops
from ..channel import INDEX, LSE, SUM, Channel, Term, Test, differs, form, same
from .labels import numbered

__all__ = ["SupConLoss"]

_OTHERS = (differs(INDEX),)


def _channels(pairs: tuple[Test, ...], weight: tuple[Term, ...]) -> tuple[Channel, ...]:
    """What takes part in the softmax, and the sum and the weights of positives."""
    own = *_OTHERS, *pairs
    of_positives = (SUM(psi, pairs=own, weight=weight) for psi in ("id", "one"))
    return LSE(pairs=_OTHERS), *of_positives


_BY_LABEL = _channels((same("label"),), ())
_BY_MASK = _channels((), (form("mask", log=True),))


class SupConLoss(nn.Module):
    r"""Supervised contrastive loss of views z that are not normalised here, as in the repository:

    :math:`-\frac{T}{T_0} \operatorname{mean}_i \frac{1}{\sum_p m_{ip}} \sum_{p \ne i} m_{ip}
    \log \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}}, \qquad
    s_{ij} = \langle z_i, z_j \rangle / T`

    The mean is over all anchors; those without a positive have loss 0.

    ``forward(features, labels=None, mask=None)``: features (N, V, ...), of which the dimensions
    after the second are flattened; ``labels`` (N,), equal for positives; or ``mask`` (N, N), the
    weights m >= 0 of positives, not necessarily symmetric; with neither, the views of an instance
    are its positives (SimCLR).

    Args:
        temperature: T.
        contrast_mode: the anchors: ``'all'`` views, or ``'one'``, the first.
        base_temperature: T_0.

    Source: Khosla et al., Supervised Contrastive Learning, 2020.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        contrast_mode: str = "all",
        base_temperature: float = 0.07,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.contrast_mode = contrast_mode
        self.base_temperature = base_temperature

    def forward(
        self, features: Tensor, labels: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        if features.ndim < 3:
            raise ValueError(f"features: got {features.ndim} dimensions, expected 3 or more")
        if labels is not None and mask is not None:
            raise ValueError("labels, mask: got both, expected one of them")
        if self.contrast_mode not in ("one", "all"):
            raise ValueError(f"contrast_mode: got {self.contrast_mode!r}, expected 'one' or 'all'")
        n, views = features.shape[:2]
        z = features.flatten(2).transpose(0, 1).flatten(0, 1)  # one view after the other
        anchors = 1 if self.contrast_mode == "one" else views
        if mask is None:
            labels = torch.arange(n) if labels is None else labels.flatten()
            if len(labels) != n:
                raise ValueError(f"labels: got {len(labels)}, expected one for each of {n}")
            channels, name = _BY_LABEL, "label"
            (rows,) = (cols,) = numbered(labels.to(z.device))
        else:
            if mask.shape != (n, n):
                raise ValueError(f"mask: got shape {tuple(mask.shape)}, expected ({n}, {n})")
            stat = ops.stat_dtype(z)
            channels, name, rows = _BY_MASK, "mask", mask.to(z.device, stat)
            cols = torch.eye(n, dtype=stat, device=z.device)
        times = [1] * (rows.ndim - 1)
        lse, positive, weight = ops.pair_stats(
            z[: anchors * n], z, channels, scale=1 / self.temperature,
            rows={name: rows.repeat(anchors, *times)}, cols={name: cols.repeat(views, *times)},
        )  # fmt: skip
        some = torch.where(weight < 1e-6, 1.0, weight)
        return (self.temperature / self.base_temperature) * (
            (weight * lse - positive) / some
        ).mean()
