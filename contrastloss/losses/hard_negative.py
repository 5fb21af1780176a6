"""Hard negative sampling by importance weights (HCL), and the debiased contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ..channel import LSE, Channel
from ..options import NonNegative, Prior, Temperature
from .base.positive_loss import TwoViewLoss
from .base.reweighting import reweighted
from .base.scores import Scores

__all__ = ["HardNegativeLoss"]


class HardNegativeLoss(TwoViewLoss, name="hard_negative"):
    r"""NT-Xent with importance-weighted hard negatives, debiased by the class prior (HCL).

    Negatives are weighted by :math:`e^{\beta s}`. With M = 2N - 2 negatives per row of
    ``z = [x; y]`` and P the positive's score,

    :math:`\begin{aligned}
    \log G_i &= \log M + \log \sum_j e^{(1 + \beta) s_{ij}} - \log \sum_j e^{\beta s_{ij}} \\
    N_i &= \max\Bigl(\frac{G_i - \tau^+ M e^{P_i}}{1 - \tau^+},\; M e^{-1/\tau}\Bigr) \\
    \ell_i &= -\log \frac{e^{P_i}}{e^{P_i} + N_i}
    \end{aligned}`

    All terms are computed in logarithms. ``beta=0`` is the debiased contrastive loss, ``beta=0,
    tau_plus=0`` is NT-Xent.

    Args:
        temperature: tau, positive. Default: 0.5.
        beta: concentration on hard negatives, >= 0. Default: 1.
        tau_plus: prior probability that a negative has the anchor's class, in [0, 1). Default: 0.1.
        detach_weights: whether the weights :math:`e^{\beta s}` are constants; False differentiates
            them, as the authors' code does. Default: False.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows, or (N, K, D), one set per instance, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: an EmbeddingQueue of additional negatives.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        row_weight: (N,), multiplies the losses of an instance's rows; 'mean' still divides by the
        number of rows that count. None for 1.
        Loss: (), or (2N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Robinson et al., Contrastive Learning with Hard Negative Samples, 2021; Chuang et al.,
    Debiased Contrastive Learning, 2020.
    """

    temperature: Temperature = 0.5
    beta: NonNegative = 1.0
    tau_plus: Prior = 0.1
    detach_weights: bool = False

    def channels(self) -> tuple[Channel, ...]:
        tilted, weights = (LSE(theta=t, pairs=self.negatives) for t in (1.0 + self.beta, self.beta))
        return tilted, weights

    @property
    def stops_gradients(self) -> bool:
        return self.detach_weights

    def combine(self, hard: Tensor, weights: Tensor, positive: Tensor, scores: Scores) -> Tensor:
        count = scores.negatives(scores.count - 2)
        return reweighted(self, count, hard, weights, positive, scores)

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        beta: float,
        tau_plus: float,
        detach_weights: bool,
    ) -> Tensor:
        z, n = torch.cat([x, y]), len(x)
        s = scale * (z @ z.mT) + bias
        i, m = torch.arange(2 * n, device=x.device), 2 * n - 2
        positive = s[i, i.roll(n)]
        if m == 0:
            return 0 * positive
        own = i[:, None] % n == i % n
        held = beta * (s.detach() if detach_weights else s)
        hard, weights = (v.masked_fill(own, -torch.inf).logsumexp(1) for v in (s + held, held))
        # divide all terms by e^P, which leaves the loss unchanged
        g = m * torch.exp(hard - weights - positive)
        floor = m * torch.exp(bias - scale.flatten() - positive)
        return torch.log1p(torch.maximum((g - tau_plus * m) / (1 - tau_plus), floor))
