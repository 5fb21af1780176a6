"""Codebook diversity loss (wav2vec 2.0)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..options import Positive
from .base.loss import Loss
from .base.scores import wide

__all__ = ["CodebookDiversityLoss"]


class CodebookDiversityLoss(Loss, name="codebook_diversity"):
    r"""Codebook diversity: encourages equal use of all entries of each codebook (wav2vec 2.0).

    With :math:`\bar p_{gv}` the mean over frames of the softmax over the V entries of codebook g,

    :math:`\begin{aligned}
    \text{entropy: } & \frac{1}{G V} \sum_{g v} \bar p_{gv} \log \bar p_{gv} \\
    \text{perplexity: } & \frac{1}{G V} \Bigl(G V - \sum_g e^{H(\bar p_g)}\Bigr),
    \qquad H(p) = -\sum_v p_v \log p_v
    \end{aligned}`

    The first is the paper's, with the minimum :math:`-\log(V) / V`. The second, between 0 and
    1 - 1/V, is that of the released code in fairseq. w2v-BERT adds it with weight 0.1
    (``loss_weight``).

    Args:
        form: ``'entropy'`` or ``'perplexity'``. Default: ``'entropy'``.
        eps: lower bound on the probabilities in the logarithm, positive, which keeps the gradient
            of unused entries finite. Default: 1e-7.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.

    Shape:
        probabilities: (..., G, V), which sum to 1 over V; all leading dimensions are frames.
        mask: (...), bool, marks the frames that count; None for all.
        Loss: (). Without frames it is 0.

    Source: Baevski et al., wav2vec 2.0: A Framework for Self-Supervised Learning of Speech
    Representations, 2020; Chung et al., w2v-BERT, 2021.
    """

    form: Literal["entropy", "perplexity"] = "entropy"
    eps: Positive = 1e-7

    inputs: ClassVar[dict[str, str]] = {"probabilities": "... N G>=1 V>=1", "mask": "... N bool"}

    def forward(self, probabilities: Tensor, *, mask: Tensor | None = None) -> Tensor:
        g, v = probabilities.shape[-2:]
        p = wide(probabilities).reshape(-1, g, v)
        count = p.new_ones(p.shape[0]).sum()
        if mask is not None:
            kept = mask.reshape(-1, 1, 1)
            p, count = torch.where(kept, p, 0.0), kept.sum()
        p = p.sum(0) / count.clamp_min(1)
        entropy = -(p * p.clamp_min(self.eps).log()).sum(-1)
        if self.form == "entropy":
            loss = -entropy.sum() / (g * v)
        else:
            loss = 1 - entropy.exp().sum() / (g * v)
        return self.scaled(torch.where(count > 0, loss, 0.0))

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor]:
        """Two codebooks."""
        scores = torch.randn(n, 2, d, generator=generator, dtype=torch.float64)
        return (scores.softmax(-1),)

    @staticmethod
    def reference(probabilities: Tensor, *, form: str, eps: float) -> Tensor:
        p = probabilities.flatten(0, -3).mean(0)
        entropy = -(p * p.log()).sum(-1)
        if form == "entropy":
            return -entropy.sum() / p.numel()
        return (p.numel() - entropy.exp().sum()) / p.numel()
