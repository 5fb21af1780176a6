"""Swapped prediction of prototype assignments (SwAV)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import ops
from ..memory import EmbeddingQueue
from ..options import Iterations, Positive, Temperature
from .base.checks import check_queue
from .base.pair_loss import PairLoss
from .base.prototypes import PrototypeLoss, sinkhorn
from .base.scores import Scores, wide

__all__ = ["SwAVLoss"]

#: what the teacher's softmax is made of: rows, prototypes and their potentials
Codes = tuple[Tensor, Tensor, Tensor]


class SwAVLoss(PrototypeLoss, PairLoss, name="swav"):
    r"""SwAV: each crop predicts the balanced assignments of other crops to prototypes.

    With the scores :math:`s^v_{ik} = \cos(v_i, c_k)` of a crop v and the codes :math:`q^w` of the
    two large crops x and y, which Sinkhorn's algorithm computes from :math:`e^{s^w / \varepsilon}`,
    the loss is the mean over the ordered pairs of crops of which one gives codes,

    :math:`\ell_i = -\frac{1}{2 (V - 1)} \sum_{w \in \{x, y\}} \sum_{v \ne w} \sum_k
    q^w_{ik} \log \frac{e^{s^v_{ik} / \tau}}{\sum_l e^{s^v_{il} / \tau}}`

    of all V crops: V = 2, if there are only x and y. Every iteration divides the codes of each
    prototype by their sum over the batch and the queue, and then the codes of each row by their
    sum, so that the codes of a row sum to 1. The codes are constants. With the rows of another
    modality as prototypes, separate ones for x and y, this is SwALIP.

    Args:
        temperature: tau, positive. Default: 0.1.
        eps: weight of the entropy in Sinkhorn's algorithm, positive; smaller values give sharper
            codes. Default: 0.05.
        iterations: number of Sinkhorn iterations, 1 to 10,000. Default: 3.
        constant_norms: True: the lengths of prototypes are constants, so that their gradient keeps
            its radial part. Of prototypes that are normalised after every step, as in the authors'
            code, it is then the gradient of that code. Default: False.
        group: spreads the rows over ranks. The codes are balanced over the rows of all ranks, and
            each rank's queues hold its own rows: enqueue them without a group. The prototypes have
            to be the same on all ranks.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D), the large crops.
        prototypes: (K, D).
        crops: (N, C, D), further crops, which give no codes; None for none.
        queues: two EmbeddingQueues, of rows like those of x and of rows like those of y, over which
        their codes are balanced, too; None for none. Enqueue the rows after the loss.
        y_prototypes: (K, D), the prototypes of y; None for the same. All inputs get gradients.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments, 2020; Fini et al., Improved baselines for vision-language pre-training, 2023
    (SwALIP).
    """

    temperature: Temperature = 0.1
    eps: Positive = 0.05
    iterations: Iterations = 3
    _: KW_ONLY
    constant_norms: bool = False

    inputs: ClassVar[dict[str, str]] = {
        "x": "N D",
        "y": "N D",
        "prototypes": "K>=1 D",
        "crops": "N C>=1 D",
        "y_prototypes": "K D",
    }
    without: ClassVar[dict[str, str]] = {
        "memory": "its columns are prototypes; codes are balanced over the rows of its queues",
        "return_stats": "its targets are soft: no pair is a positive or a negative",
    }
    VECTORS = frozenset()

    @property
    def stops_gradients(self) -> bool:
        return True  # the codes

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        prototypes: Tensor,
        *,
        crops: Tensor | None = None,
        queues: Sequence[EmbeddingQueue] | None = None,
        y_prototypes: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Tensor:
        if crops is not None and y_prototypes is not None:
            raise ValueError("crops: got a value with y_prototypes, expected None")
        held = self._queues(queues, x)
        if self.group is not None and not self.equal_sizes:  # all ranks are here, with equal K
            about = {"prototypes": str(tuple(prototypes.shape))}
            self.group.meet((x.shape[0], prototypes.shape[0]), about, x.device)
        prototypes = self._columns(prototypes)
        others = prototypes if y_prototypes is None else self._columns(y_prototypes)
        scale = logit_scale, logit_bias
        codes = [self._codes(x, prototypes, held[0]), self._codes(y, others, held[1])]
        losses = self.cross_entropy(self._scores(x, prototypes, *scale), *codes[1])
        losses = losses + self.cross_entropy(self._scores(y, others, *scale), *codes[0])
        if crops is None:
            return self.reduce(losses / 2)
        count = crops.shape[1]
        scores = self._scores(crops.flatten(0, 1), prototypes, *scale)
        for rows, columns, potential in codes:
            found = self.cross_entropy(scores, rows.repeat_interleave(count, 0), columns, potential)
            losses = losses + found.view(-1, count).sum(1)
        return self.reduce(losses / (2 * (count + 1)))

    def _queues(
        self, queues: Sequence[EmbeddingQueue] | None, x: Tensor
    ) -> Sequence[EmbeddingQueue | None]:
        if queues is None:
            return None, None
        if not isinstance(queues, (tuple, list)) or len(queues) != 2:
            got = type(queues).__name__
            raise TypeError(f"queues: got {got}, expected two queues, of x's and y's rows")
        return [check_queue(self, "queues", queue, ("x", x), x.shape[0], None) for queue in queues]

    def _columns(self, prototypes: Tensor) -> Tensor:
        """In fp32, so that gradients of all predictions are added in it, and with their lengths."""
        prototypes = wide(prototypes)
        if not (self.normalize and self.constant_norms):
            return prototypes
        return prototypes / prototypes.detach().norm(dim=1, keepdim=True).clamp_min(1e-12)

    def _scores(self, x: Tensor, prototypes: Tensor, *scale: Any) -> Scores:
        fixed = self.normalize and self.constant_norms
        scores = self.scores(ops.unit(wide(x)) if fixed else x, prototypes, *scale, alone=True)
        scores.normalize = self.normalize and not fixed
        return scores

    def _codes(self, x: Tensor, prototypes: Tensor, queue: EmbeddingQueue | None) -> Codes:
        teacher, columns = self.constant(x), self.constant(prototypes)
        rows, there = teacher, None
        if queue is not None:
            with torch.no_grad():  # nothing of it is needed after this call
                held = queue.snapshot()
            rows = torch.cat([self.constant(held.embeddings), teacher])
            if held.steps is not None:
                there = nn.functional.pad(held.steps >= 0, (0, x.shape[0]), value=True)
        potential = sinkhorn(
            rows,
            columns,
            eps=self.eps,
            iterations=self.iterations,
            backend=self.backend,
            there=there,
            peers=self.group,
        )
        return teacher / self.eps, columns, potential

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
        constant_norms: bool = False,
        normalize: bool = False,
        y_prototypes: Tensor | None = None,
    ) -> Tensor:
        others = prototypes if y_prototypes is None else y_prototypes
        columns = [prototypes, others]
        if normalize:
            x, y = (nn.functional.normalize(v) for v in (x, y))
            norms = [c.norm(dim=1, keepdim=True).clamp_min(1e-12) for c in columns]
            norms = [norm.detach() if constant_norms else norm for norm in norms]
            columns = [c / norm for c, norm in zip(columns, norms, strict=True)]
        scores = [x @ columns[0].mT, y @ columns[1].mT]
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
