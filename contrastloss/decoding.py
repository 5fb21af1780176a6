"""Text decoding: contrastive search, and the isotropy of a model's representations.

Su and Collier, Contrastive Search Is What You Need For Neural Text Generation, 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import ops
from .channel import MAX, same
from .ops.check import check_device, check_embeddings, shape

__all__ = ["contrastive_search", "isotropy"]

_VALID = "valid"
_NEAREST = MAX(pairs=(same(_VALID),))


def contrastive_search(
    probabilities: Tensor,
    candidates: Tensor,
    context: Tensor,
    *,
    alpha: float = 0.6,
    valid: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Scores of the candidates for the next token; choose the one with the highest score.

    .. math:: (1 - \alpha)\, p_v - \alpha \max_j \cos(h_v, h_j)

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
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: got {alpha}, expected a number in [0, 1]")
    check_embeddings("candidates", candidates)
    if candidates.ndim != 3:
        raise ValueError(f"candidates: got shape {shape(candidates)}, expected (B, k, D)")
    check_embeddings("context", context, ("candidates", candidates))
    b, k, d = candidates.shape
    if context.ndim != 3 or (context.shape[0], context.shape[2]) != (b, d):
        raise ValueError(f"context: got shape {shape(context)}, expected ({b}, T, {d})")
    check_embeddings("probabilities", probabilities)
    check_device("probabilities", probabilities, "candidates", candidates)
    if probabilities.shape != (b, k):
        raise ValueError(f"probabilities: got shape {shape(probabilities)}, expected ({b}, {k})")
    rows = {_VALID: torch.ones(k, dtype=torch.int64, device=context.device)}
    (nearest,) = ops.pair_stats(
        candidates,
        context,
        (_NEAREST,),
        rows=rows,
        cols={_VALID: _checked(valid, context).long()},
        cosine=True,
        backend=backend,
    )
    penalty = torch.where(nearest.value == -torch.inf, 0.0, nearest.value)
    return (1 - alpha) * probabilities.to(penalty.dtype) - alpha * penalty


def isotropy(h: Tensor, valid: Tensor | None = None) -> Tensor:
    """1 minus the mean cosine between distinct tokens, in one pass: about 1 if directions are
    spread evenly, 0 if all are the same.

    Args:
        h: (..., T, D), the representations of each text's tokens.
        valid: (..., T), bool, False for padding; None if all are valid.

    Returns:
        (...), in fp32 (fp64 for fp64). A text with fewer than two tokens: 1.
    """
    check_embeddings("h", h)
    if h.ndim < 2:
        raise ValueError(f"h: got shape {shape(h)}, expected (..., T, D)")
    valid = _checked(valid, h)
    r = ops.inverse_norm(h)
    unit = torch.where(valid.unsqueeze(-1), h.to(r.dtype) * r.unsqueeze(-1), 0.0)
    # the squared length of the sum is the sum of all cosines; self pairs are subtracted
    total = unit.sum(-2).square().sum(-1) - unit.square().sum((-2, -1))
    count = valid.sum(-1)
    return 1 - total / (count * (count - 1)).clamp_min(1)


def _checked(valid: Tensor | None, h: Tensor) -> Tensor:
    if valid is None:
        return torch.ones(h.shape[:-1], dtype=torch.bool, device=h.device)
    if not isinstance(valid, Tensor) or valid.dtype != torch.bool:
        got = valid.dtype if isinstance(valid, Tensor) else type(valid).__name__
        raise TypeError(f"valid: got {got}, expected a tensor of torch.bool")
    if valid.shape != h.shape[:-1]:
        raise ValueError(f"valid: got shape {shape(valid)}, expected {shape(h[..., 0])}")
    check_device("valid", valid, "the representations", h)
    return valid
