"""The losses of rows against rows, as formulas over dense scores, with all that a call may say."""

import torch
from torch.nn.functional import normalize


def products(x, y):
    return normalize(x, dim=-1) @ normalize(y, dim=-1).mT


def softmax_rows(s, positive, there, extra, kept, *, variant="out", label_smoothing=0.0):
    """Losses of rows and which count: ``s`` (M, N) with ``positive`` pairs and those that are
    ``there``, positives included; ``extra`` (M, K), negatives, those that are ``kept``."""
    logits = torch.cat([s.masked_fill(~there, -torch.inf), extra.masked_fill(~kept, -torch.inf)], 1)
    some = positive.any(1)
    logits = torch.where(some[:, None], logits, 0.0)
    log_p = logits - logits.logsumexp(1, keepdim=True)
    all_there = torch.cat([there, kept], 1)
    mean = torch.where(all_there, log_p, 0.0).sum(1) / all_there.sum(1).clamp_min(1)
    own = log_p[:, : s.shape[1]]
    if variant == "out":
        hit = torch.where(positive, own, 0.0).sum(1) / positive.sum(1).clamp_min(1)
    else:
        hit = own.masked_fill(~positive & some[:, None], -torch.inf).logsumexp(1)
    losses = -(1 - label_smoothing) * hit - label_smoothing * mean
    return torch.where(some, losses, 0.0), some


def mean_of(losses, counted):
    return losses.sum() / counted.sum().clamp_min(1)


def given_scores(x, negatives, scale, bias=None, mask=None):
    """(M, K) scores with shared or own negatives, and which are there."""
    if negatives is None:
        return x.new_zeros(len(x), 0), torch.zeros(len(x), 0, dtype=torch.bool)
    own = negatives.expand(len(x), *negatives.shape[-2:])
    s = scale * torch.einsum("nd,nkd->nk", normalize(x, dim=1), normalize(own, dim=-1))
    s = s if bias is None else s - bias
    there = torch.ones_like(s, dtype=torch.bool)
    return s, there if mask is None else there & mask


def softmax_loss(
    x, y, positive, *, both=False, temperature=0.3, variant="out", label_smoothing=0.0,
    in_batch=True, negatives=None, mask=None, negatives_log_q=None, x_negatives=None,
    log_q=None, x_log_q=None, row_weight=None, stored=(None, None),
):  # fmt: skip
    """InfoNCE, or CLIP if ``both``: a list of (losses, which count), of rows and columns."""
    scale = 1 / temperature
    s = scale * products(x, y)
    options = {"variant": variant, "label_smoothing": label_smoothing}
    found = []
    sides = [(x, s, positive, log_q, (negatives, mask, negatives_log_q), stored[0])]
    sides += [(y, s.mT, positive.mT, x_log_q, (x_negatives, None, None), stored[1])] * both
    for rows, scores, pos, bias, (n, m, q), queue in sides:
        scores = scores if bias is None else scores - bias
        extra, kept = given_scores(rows, n, scale, q, m)
        more, there = given_scores(rows, queue, scale)
        extra, kept = torch.cat([extra, more], 1), torch.cat([kept, there], 1)
        found.append(softmax_rows(scores, pos, pos | in_batch, extra, kept, **options))
    losses, counted = found[0]
    found[0] = (losses if row_weight is None else losses * row_weight), counted
    return found


def sigmoid_loss(
    x, y, positive, *, temperature=0.3, bias=-4.0, weight="one", in_batch=True, negatives=None,
    mask=None, row_weight=None, stored=None,
):  # fmt: skip
    """SigLIP's losses of rows."""
    softplus = lambda u: torch.logaddexp(u, torch.zeros_like(u))  # noqa: E731
    s = products(x, y) / temperature + bias
    k = positive.sum(1, keepdim=True).clamp_min(1) if weight == "inverse_count" else 1
    losses = torch.where(positive, softplus(-s) / k, softplus(s) * in_batch).sum(1)
    for columns, there in ((negatives, mask), (stored, None)):
        extra, kept = given_scores(x, columns, 1 / temperature, None, there)
        losses = losses + torch.where(kept, softplus(extra + bias), 0.0).sum(1)
    return losses if row_weight is None else losses * row_weight
