"""SupCon on pooled image and text embeddings."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import ops
from ..memory import EmbeddingQueue
from ..options import Fraction
from .base.negatives import NEGATIVES
from .base.scores import wide
from .supcon import SupConLoss

__all__ = ["PooledSupConLoss"]


class PooledSupConLoss(SupConLoss, name="pooled_supcon"):
    r"""SupCon on the weighted sum of each instance's image and text embeddings.

    :math:`z_i = \operatorname{unit}\bigl(w \operatorname{unit}(\text{image}_i) +
    (1 - w) \operatorname{unit}(\text{text}_i)\bigr)`

    The loss of z is that of :class:`SupConLoss`.

    Args:
        temperature: tau, positive. Default: 0.1.
        variant: ``'out'`` or ``'in'``, as in SupCon. Default: ``'out'``.
        label_smoothing: from 0 to 1, as in SupCon. Default: 0.
        image_weight: w, from 0 to 1. Default: 0.3.
        normalize: False uses images and texts without normalisation; the sum is always a unit
            vector. Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.
        ignore_index: rows with this label take no part; None: there is no such label.

    Shape:
        image, text: (N, D).
        labels: (N,), integers.
        ids, log_q: as in SupCon.
        negatives: (K, D), shared by all rows, or (N, K, D), one set per row, or (L, D) with
        offsets: further negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        negatives_log_q: log q of each negative, finite, subtracted from its scores; None for 0.
        memory: an EmbeddingQueue of z, made with ``labels=True``; its columns are additional
        positives and negatives, without gradient.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by the number of rows
        that count. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Arora et al., Linking Representations with Multimodal Contrastive Learning, 2023
    (CLIPPINGS).
    """

    _: KW_ONLY
    image_weight: Fraction = 0.3

    inputs: ClassVar[dict[str, str]] = {
        "image": "N D",
        "text": "N D",
        "labels": "N int",
        **NEGATIVES,
        "row_weight": "N float",
        "log_q": "N float",
    }

    def forward(  # type: ignore[override]
        self,
        image: Tensor,
        text: Tensor,
        labels: Tensor,
        *,
        negatives: Tensor | None = None,
        negatives_mask: Tensor | None = None,
        negatives_offsets: Tensor | None = None,
        negatives_ids: Tensor | None = None,
        negatives_log_q: Tensor | None = None,
        memory: EmbeddingQueue | None = None,
        ids: Tensor | None = None,
        row_weight: Tensor | None = None,
        log_q: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        sides = [wide(image), wide(text)]
        if self.normalize:
            sides = [ops.unit(v) for v in sides]
        z = self.image_weight * sides[0] + (1 - self.image_weight) * sides[1]
        return super().forward(
            ops.unit(z),
            labels,
            negatives=None if negatives is None else wide(negatives),
            negatives_mask=negatives_mask,
            negatives_offsets=negatives_offsets,
            negatives_ids=negatives_ids,
            negatives_log_q=negatives_log_q,
            memory=memory,
            ids=ids,
            row_weight=row_weight,
            log_q=log_q,
            logit_scale=logit_scale,
            logit_bias=logit_bias,
        )

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        labels = torch.randint(0, max(n // 4, 1), (n,), generator=generator)
        centre, *noise = (torch.randn(n, d, generator=generator).double() for _ in range(3))
        image, text = (centre[labels] + 0.9 * v for v in noise)
        return image, 2 * text, labels

    @staticmethod
    def reference(  # type: ignore[override]
        image: Tensor,
        text: Tensor,
        labels: Tensor,
        *,
        image_weight: float,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        z = torch.nn.functional.normalize(image_weight * image + (1 - image_weight) * text)
        return SupConLoss.reference(z, labels, **options)
