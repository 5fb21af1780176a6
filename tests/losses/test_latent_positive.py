from math import e, exp, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, queue_for, rows_of, tensor

from contrastloss import EmbeddingQueue, LatentPositiveLoss, MoCoLoss
from contrastloss.functional import latent_positive
from contrastloss.testing import CHECKS, Subject


class Queued(LatentPositiveLoss):
    """With a partly filled queue."""

    @staticmethod
    def example(n, d, generator):
        query, key, _, generated, valid = LatentPositiveLoss.example(n, d, generator)
        return query, key, generated, valid

    def forward(self, query, key, generated, valid, **overrides):
        return super().forward(query, key, queue_for(query), generated, valid, **overrides)

    @staticmethod
    def reference(query, key, *generated, **options):
        queue = rows_of(queue_for(query))
        return LatentPositiveLoss.reference(query, key, queue, *generated, **options)


@every_check
def test_properties(check, device):
    check(Subject(LatentPositiveLoss, {"form": "info_nce", "weight": 2.0}, device, thorough=False))


@pytest.mark.parametrize("cls", [LatentPositiveLoss, Queued])
def test_on_every_backend(cls, device, backend):
    CHECKS[0](Subject(cls, {"weight": 0.5}, device, backend))


def test_by_hand(device):
    # positive scores 1 and 0; queue scores 0, -1 and 1, 0. Generated: 1, 0.6 for row 1, 0 for row 2
    query, key = tensor(E1, E2, device=device), tensor(E1, E1, device=device)
    queue = tensor(E2, [-1, 0], device=device)
    generated = torch.stack([tensor(E1, [0.6, 0.8]), tensor(E1, E2)]).to(device)
    valid = torch.tensor([[1, 1], [1, 0]], device=device).bool()
    inputs, options = (query, key, queue, generated), {"temperature": 1.0, "reduction": "none"}
    moco = [log(e + 1 + exp(-1)) - 1, log(2 + e)]
    rows = latent_positive(*inputs, valid, weight=2.0, **options)
    close(rows, [moco[0] - 2 * 2 / 3 * 1.6, moco[1]])  # the mean of 1, 0.6 and 0
    rows = latent_positive(*inputs, weight=2.0, **options)
    close(rows, [moco[0] - 1.6, moco[1] - 1])
    second = log(exp(0.6) + 1 + exp(-1)) - 0.6
    rows = latent_positive(*inputs, valid, form="info_nce", **options)
    close(rows, [moco[0] + 2 / 3 * (moco[0] + second), moco[1] + 2 / 3 * moco[1]])


@pytest.mark.parametrize("form", ["alignment", "info_nce"])
def test_nothing_generated_is_moco(form, device):
    query, key, queue, generated, valid = Subject(LatentPositiveLoss, device=device).inputs()
    held = EmbeddingQueue(len(queue) + 2, queue.shape[1], dtype=queue.dtype, device=device)
    held.enqueue(queue)
    loss, want = LatentPositiveLoss(form=form), MoCoLoss()(query, key, queue)
    close(loss(query, key, held, generated, valid & False), want)
    close(loss(query, key, held, generated[:, :0]), want)


def test_an_empty_queue_is_finite(device):
    query, key, _, generated, valid = Subject(LatentPositiveLoss, device=device).inputs()
    query.requires_grad_()
    queue = EmbeddingQueue(4, query.shape[1], dtype=query.dtype, device=device)
    value = LatentPositiveLoss(form="info_nce")(query, key, queue, generated, valid)
    assert value.item() == 0.0
    assert not gradients(value, query)[0].any()


def test_errors():
    x, g, loss = torch.randn(4, 3), torch.randn(4, 5, 3), LatentPositiveLoss()
    for given, kind, message in (
        ((g[1:],), ValueError, r"generated: got shape \(3, 5, 3\), expected \(4, G, 3\)"),
        ((g.double(),), TypeError, "generated: got dtype torch.float64, expected query's"),
        ((g, torch.ones(4, 5)), TypeError, "valid: got dtype torch.float32, expected torch.bool"),
        ((g, torch.ones(4, 4).bool()), ValueError, r"valid: got shape \(4, 4\), expected \(4, 5\)"),
    ):
        with pytest.raises(kind, match=f"^{message}"):
            loss(x, x, x, *given)
    with pytest.raises(ValueError, match=r"^weight: got nan, expected a finite number"):
        LatentPositiveLoss(torch.nan)
