"""CLIP with time-reversed negatives."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..ops.merge import log_sum_exp
from ..options import NonNegative, Temperature
from .base.loss import softplus
from .base.pair_loss import PairLoss
from .base.positive_loss import BY_COL, BY_ROW, CrossLoss
from .base.scores import Scores

__all__ = ["TemporalCLIPLoss"]

BOTH = (BY_ROW, BY_COL, CrossLoss.positive)
#: the negatives of other rows, and the row's own column
APART = (BY_ROW, CrossLoss.positive)


class TemporalCLIPLoss(PairLoss, name="temporal_clip"):
    r"""CLIP with embeddings of time-reversed inputs as additional negatives.

    :math:`\ell_i = \tfrac12\, r(t_i, a, \tilde a) + \tfrac12\, r(a_i, t, \tilde t), \qquad
    r(q_i, k, \tilde k) = -\log \frac{e^{s(q_i, k_i)}}{\sum_j e^{s(q_i, k_j)} +
    \text{same}\; e^{s(q_i, \tilde k_i)} +
    \text{cross} \sum_{j \ne i} e^{s(q_i, \tilde k_j)}}`

    for audio a and text t. Reversed embeddings that are not given are left out. For the loss of the
    reversed pair, call it with each side and its reversal exchanged. The statistics of
    ``return_stats`` are those of the audio with the texts, without reversals.

    Args:
        same: weight >= 0 of a row's own reversal; 0 leaves it out. Default: 1.
        cross: weight >= 0 of the reversals of other rows; 0 leaves them out. Default: 1.
        temperature: tau, positive. Default: 0.07.

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
        audio, text: (N, D).
        audio_reversed, text_reversed: (N, D) or None; at least one is required. They are negatives
        of the texts and of the audio, respectively.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Sinha et al., Enhancing Audio-Language Models through Self-Supervised Post-Training with
    Text-Audio Pairs, 2024; Bagad et al., Test of Time, 2023.
    """

    same: NonNegative = 1.0
    cross: NonNegative = 1.0
    _: KW_ONLY
    temperature: Temperature = 0.07

    inputs: ClassVar[dict[str, str]] = dict.fromkeys(
        ("audio", "text", "audio_reversed", "text_reversed"), "N D"
    )
    without: ClassVar[dict[str, str]] = {
        "memory": "every term has columns of another kind, and a queue holds one kind"
    }
    negatives = CrossLoss.negatives

    def forward(
        self,
        audio: Tensor,
        text: Tensor,
        audio_reversed: Tensor | None = None,
        text_reversed: Tensor | None = None,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        if audio_reversed is None and text_reversed is None:
            raise ValueError("audio_reversed: got None beside text_reversed=None, expected one")
        scores = self.scores(audio, text, logit_scale, logit_bias)
        (*negatives, positive), extra = self.measure(scores, BOTH)
        rows = torch.zeros_like(positive)
        for query, turned, negative in zip(
            (audio, text), (text_reversed, audio_reversed), negatives, strict=True
        ):
            if turned is not None:
                negative = self._beside(negative, scores.between(query, turned))
            rows = rows + softplus(negative - positive)
        return self.finish(0.5 * rows, extra, positive)

    def _beside(self, negative: Tensor, scores: Scores) -> Tensor:
        """Log-sum-exp over the negatives and the weighted scores of reversed columns."""
        parts = [negative]
        if self.cross:
            others, own = scores.stats(APART)
            parts.append(others + math.log(self.cross))
        else:
            own = scores.aligned()
        if self.same:
            parts.append(own + math.log(self.same))
        return log_sum_exp(torch.stack(parts))

    @staticmethod
    def reference(
        audio: Tensor,
        text: Tensor,
        audio_reversed: Tensor | None = None,
        text_reversed: Tensor | None = None,
        *,
        scale: Tensor,
        bias: Tensor,
        same: float,
        cross: float,
    ) -> Tensor:
        def one_way(s: Tensor, query: Tensor, turned: Tensor | None) -> Tensor:
            logits = s
            if turned is not None:
                weight = torch.full_like(s, cross).fill_diagonal_(same)
                logits = torch.cat([s, scale * (query @ turned.mT) + bias + weight.log()], 1)
            return logits.logsumexp(1) - s.diagonal()

        s = scale * (audio @ text.mT) + bias
        return (one_way(s.mT, text, audio_reversed) + one_way(s, audio, text_reversed)) / 2

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Both modalities share one direction per instance, both reversals another one."""
        cosine = min(0.9, math.sqrt(2 * math.log(4 * n + 2) / d))
        x = normalize(torch.randn(6, n, d, generator=generator, dtype=torch.float64), dim=-1)
        common, own = x[:2].repeat_interleave(2, 0), x[2:]
        return tuple(1.5 * (math.sqrt(cosine) * common + math.sqrt(1 - cosine) * own))
