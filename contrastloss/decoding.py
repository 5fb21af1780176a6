"""Text decoding: contrastive search, and the isotropy of a model's representations.

Su and Collier, Contrastive Search Is What You Need For Neural Text Generation, 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import ops
from .channel import MAX, same
from .inputs import takes
from .options import Fraction

__all__ = ["contrastive_search", "isotropy"]

_VALID = "valid"
_NEAREST = MAX(pairs=(same(_VALID),))


@takes(probabilities="B k float", candidates="B k D", context="B T D", valid="B T bool")
def contrastive_search(
    probabilities: Tensor,
    candidates: Tensor,
    context: Tensor,
    *,
    alpha: Fraction = 0.6,
    valid: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Scores of the candidates for the next token; choose the one with the highest score.

    :math:`(1 - \alpha)\, p_v - \alpha \max_j \cos(h_v, h_j)`

    Args:
        probabilities: p, (B, k), the model's probabilities of its k most likely tokens.
        candidates: (B, k, D), the representation of each of these tokens after the context.
        context: (B, T, D), the representations of the tokens so far.
        alpha: weight of the penalty for similarity to the context, 0.6; in [0, 1].
        valid: (B, T), bool, False for padding; None if all are valid. Without any valid token the
            penalty is 0.
        backend: the name of a backend; None chooses one.

    Returns:
        (B, k), in fp32 (fp64 for fp64).
    """
    k = candidates.shape[1]
    rows = {_VALID: torch.ones(k, dtype=torch.int64, device=context.device)}
    (nearest,) = ops.pair_stats(
        candidates,
        context,
        (_NEAREST,),
        rows=rows,
        cols={_VALID: (_all_valid(context) if valid is None else valid).long()},
        cosine=True,
        backend=backend,
    )
    penalty = torch.where(nearest.value == -torch.inf, 0.0, nearest.value)
    return (1 - alpha) * probabilities.to(penalty.dtype) - alpha * penalty


@takes(h="... T D", valid="... T bool")
def isotropy(h: Tensor, valid: Tensor | None = None) -> Tensor:
    """1 minus the mean cosine between distinct tokens, in one pass: about 1 if directions are
    spread evenly, 0 if all are the same.

    Args:
        h: (..., T, D), the representations of each text's tokens.
        valid: (..., T), bool, False for padding; None if all are valid.

    Returns:
        (...), in fp32 (fp64 for fp64). A text with fewer than two tokens: 1.
    """
    valid = _all_valid(h) if valid is None else valid
    r = ops.inverse_norm(h)
    unit = torch.where(valid.unsqueeze(-1), h.to(r.dtype) * r.unsqueeze(-1), 0.0)
    # the squared length of the sum is the sum of all cosines; self pairs are subtracted
    total = unit.sum(-2).square().sum(-1) - unit.square().sum((-2, -1))
    count = valid.sum(-1)
    return 1 - total / (count * (count - 1)).clamp_min(1)


def _all_valid(h: Tensor) -> Tensor:
    return torch.ones(h.shape[:-1], dtype=torch.bool, device=h.device)
