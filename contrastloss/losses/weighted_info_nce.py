"""InfoNCE with row weights and sampling bias correction."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import ops
from ..channel import INDEX, LSE, col_weight, differs
from ..options import Temperature
from .base.loss import softplus
from .base.positive_loss import BY_ROW, CrossLoss

__all__ = ["WeightedInfoNCELoss"]

LOG_Q = "minus log q"
_CORRECTED = LSE(pairs=(differs(INDEX),), weight=(col_weight(LOG_Q),))


class WeightedInfoNCELoss(CrossLoss, name="weighted_info_nce"):
    r"""InfoNCE with row weights and log-q correction of the columns' sampling bias.

    .. math:: \ell_i = -w_i \log
        \frac{e^{s_{ii} - \log q_i}}{e^{s_{ii} - \log q_i} + \sum_{j \ne i} e^{s_{ij} - \log q_j}},
        \qquad s_{ij} = \cos(x_i, y_j) / \tau

    With :math:`q_j` the probability that column j is in a batch, this is the corrected batch
    softmax, which does not penalise frequent items. ``correct_positive=False`` corrects the
    negatives only, which weights them by their inverse propensity. ``reduction='mean'`` divides by
    the number of rows, not by the sum of their weights. The statistics of ``return_stats`` use the
    uncorrected scores s.

    Args:
        temperature: tau, positive. Default: 0.1.
        correct_positive: whether to subtract log q from the positive's score, too. Default: True.

    Shape:
        x, y: (N, D).
        row_weight: w, (N,), None for 1.
        log_q: (N,), finite, None for 0. With a group, both are those of this rank's rows. Neither
        gets a gradient.
        Loss: (), or (N,) for ``reduction='none'``. A row without negatives has loss 0.

    Source: correction: Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations, 2019; Yao et al., Self-supervised Learning for Large-scale Item
    Recommendations, 2021; propensities: Miao et al., DebCSE: Rethinking Unsupervised Contrastive
    Sentence Embedding Learning in the Debiasing Perspective, 2023; weights: Li et al., GenView:
    Enhancing View Quality with Pretrained Generative Model for Self-Supervised Learning, 2024.
    """

    temperature: Temperature = 0.1
    correct_positive: bool = True

    without: ClassVar[dict[str, str]] = {"memory": "a queue holds no probabilities of its columns"}

    inputs: ClassVar[dict[str, str]] = {
        "x": "N D",
        "y": "N D",
        "row_weight": "N float",
        "log_q": "N float",
    }

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        y: Tensor,
        *,
        row_weight: Tensor | None = None,
        log_q: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        if row_weight is not None:
            row_weight = row_weight.detach().to(ops.stat_dtype(x))
        scores = self.scores(x, y, logit_scale, logit_bias)
        channel, cols = BY_ROW, {}
        if log_q is not None:
            log_q = log_q.detach().to(ops.stat_dtype(x))
            channel, cols = _CORRECTED, {LOG_Q: -log_q}
        (negative, positive), extra = self.measure(scores, (channel, self.positive), cols=cols)
        corrected = positive
        if log_q is not None and self.correct_positive:
            corrected = positive - log_q
        losses = softplus(negative - corrected)
        if row_weight is not None:
            losses = row_weight * losses
        return self.finish(losses, extra, positive)

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        correct_positive: bool,
        row_weight: Tensor | None = None,
        log_q: Tensor | None = None,
    ) -> Tensor:
        s = scale * (x @ y.mT) + bias
        if log_q is not None:
            fixed = 0 if correct_positive else torch.diag(log_q)
            s = s - log_q + fixed
        losses = s.logsumexp(1) - s.diag()
        return losses if row_weight is None else row_weight * losses
