"""Swapped prediction of prototype assignments (SwAV)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ..options import Iterations, Positive, Temperature
from .base.prototypes import PrototypeLoss, sinkhorn
from .base.scores import wide

__all__ = ["SwAVLoss"]


class SwAVLoss(PrototypeLoss, name="swav"):
    r"""SwAV: each view predicts the other view's balanced assignment to prototypes.

    With the scores :math:`s^x_{ik} = \cos(x_i, c_k)` of a view and its codes :math:`q^x`, which
    Sinkhorn's algorithm computes from :math:`e^{s^x / \varepsilon}`,

    .. math:: \ell_i = -\frac12 \sum_k \Bigl[
        q^y_{ik} \log \frac{e^{s^x_{ik} / \tau}}{\sum_l e^{s^x_{il} / \tau}} +
        q^x_{ik} \log \frac{e^{s^y_{ik} / \tau}}{\sum_l e^{s^y_{il} / \tau}} \Bigr]

    Every iteration divides the codes of each prototype by their sum over the batch, and then the
    codes of each row by their sum, so that the codes of a row sum to 1. The codes are constants and
    are balanced over the batch of this process. For several crops, sum over pairs of views. With
    the rows of another modality as prototypes, separate ones for x and y, this is SwALIP.

    Args:
        temperature: tau, positive. Default: 0.1.
        eps: weight of the entropy in Sinkhorn's algorithm, positive; smaller values give sharper
            codes. Default: 0.05.
        iterations: number of Sinkhorn iterations, 1 to 10,000. Default: 3.

    Shape:
        x, y: (N, D).
        prototypes: (K, D).
        y_prototypes: (K, D), the prototypes of y; None for the same. All inputs get gradients.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments, 2020; Fini et al., Improved baselines for vision-language pre-training, 2023
    (SwALIP).
    """

    temperature: Temperature = 0.1
    eps: Positive = 0.05
    iterations: Iterations = 3

    inputs: ClassVar[dict[str, str]] = {
        "x": "N D",
        "y": "N D",
        "prototypes": "K>=1 D",
        "y_prototypes": "K D",
    }
    without: ClassVar[dict[str, str]] = {
        "group": "its codes are balanced over the rows of one process",
        "memory": "its columns are prototypes",
        "return_stats": "its targets are soft: no pair is a positive or a negative",
    }

    @property
    def stops_gradients(self) -> bool:
        return True  # the codes

    def forward(
        self, x: Tensor, y: Tensor, prototypes: Tensor, *, y_prototypes: Tensor | None = None
    ) -> Tensor:
        prototypes = wide(prototypes)  # so that both predictions' gradients are added in fp32
        others = prototypes if y_prototypes is None else wide(y_prototypes)
        losses = self._predicted(x, prototypes, y, others)
        losses = losses + self._predicted(y, others, x, prototypes)
        return self.reduce(losses / 2)

    def _predicted(self, x: Tensor, prototypes: Tensor, y: Tensor, others: Tensor) -> Tensor:
        """Cross entropy of x's softmax with the codes of y."""
        teacher, columns = self.constant(y), self.constant(others)
        potential = sinkhorn(
            teacher, columns, eps=self.eps, iterations=self.iterations, backend=self.backend
        )
        return self.cross_entropy(x, prototypes, teacher / self.eps, columns, potential)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        k = n // 3 + 3
        prototypes, z, *noise = (
            torch.randn(m, d, generator=generator).double() for m in (k, n, n, n)
        )
        x, y = (z + 0.7 * v for v in noise)
        return x, 2 * y, 1.5 * prototypes

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        prototypes: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        eps: float,
        iterations: int,
        y_prototypes: Tensor | None = None,
    ) -> Tensor:
        others = prototypes if y_prototypes is None else y_prototypes
        scores = [x @ prototypes.mT, y @ others.mT]
        codes = []
        for s in scores:
            log_q = s.detach() / eps  # logarithms, since a column's mass may underflow
            for _ in range(iterations):
                log_q = log_q - log_q.logsumexp(0, keepdim=True)
                log_q = log_q - log_q.logsumexp(1, keepdim=True)
            codes.append(log_q.exp())
        logits = [scale * s + bias for s in scores]
        swapped = zip(logits, codes[::-1], strict=True)
        return -sum((q * s.log_softmax(1)).sum(1) for s, q in swapped) / 2  # type: ignore[return-value]
