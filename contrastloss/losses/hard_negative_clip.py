"""Hard negative reweighting between two modalities."""

from __future__ import annotations

import torch
from torch import Tensor

from ..channel import COL, LSE, ROW, Channel
from ..options import NonNegative, Prior, Temperature
from .base.positive_loss import CrossLoss
from .base.reweighting import reweighted
from .base.scores import Scores

__all__ = ["HardNegativeCLIPLoss"]


class HardNegativeCLIPLoss(CrossLoss, name="hard_negative_clip"):
    r"""CLIP with importance-weighted hard negatives, debiased by the class prior.

    The negatives of row i, the M = N - 1 other rows of the other modality, are weighted by
    :math:`e^{\beta s}`. With :math:`P_i = s_{ii}`,

    :math:`\begin{aligned}
    \log G_i &= \log M + \log \sum_{j \ne i} e^{(1 + \beta) s_{ij}} -
    \log \sum_{j \ne i} e^{\beta s_{ij}} \\
    N_i &= \max\Bigl(\frac{G_i - \tau^+ M e^{P_i}}{1 - \tau^+},\; M e^{-1/\tau}\Bigr) \\
    \ell_i &= \tfrac12 \log\bigl(1 + N_i e^{-P_i}\bigr) +
    \tfrac12 \log\bigl(1 + N'_i e^{-P_i}\bigr)
    \end{aligned}`

    where :math:`N'` is N computed from the scores :math:`s_{ji}`. ``beta=0, tau_plus=0`` is CLIP.

    Args:
        temperature: tau, positive. Default: 0.5.
        beta: concentration on hard negatives, >= 0. Default: 1.
        tau_plus: prior probability that a negative has the anchor's class, in [0, 1). Default: 0.1.
        detach_weights: whether the weights :math:`e^{\beta s}` are constants. Default: False.

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
        negatives: (K, D), shared by all rows of x, or (N, K, D), one set per row, or (L, D) with
        offsets: further negatives of the rows of x.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: instance i's negatives are those from offset i to
        before offset i + 1.
        memory: two EmbeddingQueues, of columns like those of y and of rows like those of x:
        additional negatives of the other side.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative, nor is
        a row with a stored column of its id, in a queue made with ``ids=True``.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``. For N = 1 it is 0.

    Source: Choi et al., Multimodal Contrastive Learning with Hard Negative Sampling for Human
    Activity Recognition, 2023; Robinson et al., Contrastive Learning with Hard Negative Samples,
    2021.
    """

    temperature: Temperature = 0.5
    beta: NonNegative = 1.0
    tau_plus: Prior = 0.1
    detach_weights: bool = False

    def channels(self) -> tuple[Channel, ...]:
        return tuple(
            LSE(theta, pairs=self.negatives, axis=axis)
            for axis in (ROW, COL)
            for theta in (1.0 + self.beta, self.beta)
        )

    @property
    def stops_gradients(self) -> bool:
        return self.detach_weights

    def combine(
        self,
        hard: Tensor,
        weights: Tensor,
        hard_by_col: Tensor,
        weights_by_col: Tensor,
        positive: Tensor,
        scores: Scores,
    ) -> Tensor:
        by_row, by_col = (scores.negatives(scores.count - 1, axis) for axis in (ROW, COL))
        rows = reweighted(self, by_row, hard, weights, positive, scores)
        cols = reweighted(self, by_col, hard_by_col, weights_by_col, positive, scores)
        return 0.5 * (rows + cols)

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
        scores, m = scale * (x @ y.mT) + bias, len(x) - 1
        positive = scores.diag()
        if m <= 0:
            return 0 * positive
        own = torch.eye(len(x), dtype=torch.bool, device=x.device)
        losses = torch.zeros_like(positive)
        for s in (scores, scores.mT):
            held = beta * (s.detach() if detach_weights else s)
            hard, weights = (v.masked_fill(own, -torch.inf).logsumexp(1) for v in (s + held, held))
            g = m * torch.exp(hard - weights - positive)
            floor = m * torch.exp(bias - scale.flatten() - positive)
            n = torch.maximum((g - tau_plus * m) / (1 - tau_plus), floor)
            losses = losses + 0.5 * torch.log1p(n)
        return losses
