from math import e, log

import pytest
import torch
from properties import E1, E2, close, every_check, gradients, queue_for, rows_of, tensor

from contrastloss import BankContrastiveLoss, EmbeddingQueue, MoCoLoss
from contrastloss.functional import bank_contrastive
from contrastloss.testing import CHECKS, Subject


class Queued(BankContrastiveLoss):
    """With a partly filled queue."""

    @staticmethod
    def example(n, d, generator):
        x, y = (torch.randn(n, d, generator=generator).double() for _ in range(2))
        return x, x + 5.0 * y, torch.randint(3, (n,), generator=generator)

    def forward(self, query, key, labels, **overrides):
        return super().forward(query, key, queue_for(query), labels, **overrides)

    @staticmethod
    def reference(query, key, labels, **options):
        queue = queue_for(query)
        kept = queue.labels[queue.steps >= 0]
        return BankContrastiveLoss.reference(query, key, rows_of(queue), labels, kept, **options)


@every_check
def test_properties(check, device):
    check(Subject(BankContrastiveLoss, {}, device, thorough=False))


@pytest.mark.parametrize("cls", [BankContrastiveLoss, Queued])
def test_on_every_backend(cls, device, backend):
    CHECKS[0](Subject(cls, {}, device, backend))


@pytest.fixture
def bank(device):
    """Four of five slots are filled: e1 and e2 with label 0, e1 twice with label 1."""
    bank = EmbeddingQueue(5, 2, labels=True, ids=True, dtype=torch.float64, device=device)
    i = torch.arange(4, device=device)
    bank.enqueue(tensor(E1, E2, E1, E1, device=device), i // 2, ids=i)
    return bank


def test_by_hand(bank, device):
    # positive scores 1; scores with the bank: 1 and 0 (label 0), 1 and 1 (label 1), none (label 2)
    x = tensor(E1, E1, E1, device=device)
    labels = torch.tensor([0, 1, 2], device=device)
    rows = bank_contrastive(x, x, bank, labels, temperature=1.0, reduction="none")
    close(rows, [log(2 * e + 1) - 1, log(3), 0.0])
    loss = BankContrastiveLoss(1.0, reduction="none")
    close(loss(x, x, rows_of(bank), labels, bank.labels[:4]), rows)
    ids = torch.tensor([0, 2, 3], device=device)  # the row's own stored column is not a negative
    close(loss(x, x, bank, labels, ids=ids), [log(e + 1) - 1, log(2), 0.0])


def test_one_label_is_moco(device):
    query, key, bank, labels, stored = Subject(BankContrastiveLoss, device=device).inputs()
    loss, want = BankContrastiveLoss(0.2), MoCoLoss(0.2)(query, key, bank)
    close(loss(query, key, bank, labels * 0, stored * 0), want)


def test_an_empty_bank_is_zero(device):
    query = torch.randn(3, 2, device=device, requires_grad=True)
    bank = EmbeddingQueue(5, 2, labels=True, device=device)
    labels = torch.full((3,), -1, device=device)  # the label of unfilled slots
    value = BankContrastiveLoss()(query, query.detach() + 1, bank, labels)
    assert value.item() == 0.0
    assert not gradients(value, query)[0].any()


def test_errors(bank):
    x, labels, loss = torch.randn(4, 2).double(), torch.zeros(4).long(), BankContrastiveLoss()
    for given, kind, message in (
        ((EmbeddingQueue(3, 2, dtype=x.dtype), labels), ValueError, "bank: got a queue without la"),
        (([E1], labels), TypeError, "bank: got list, expected an EmbeddingQueue"),
        ((bank, labels[1:]), ValueError, r"labels: got shape \(3,\), expected \(4,\)"),
        ((bank, labels, labels), ValueError, "bank_labels: got a value beside a queue"),
        ((x, labels), ValueError, "bank_labels: got None, expected the labels"),
        ((x, labels, labels[1:]), ValueError, r"bank_labels: got shape \(3,\), expected \(4,\)"),
        ((x[:, 1:], labels, labels), ValueError, r"bank: got shape \(4, 1\), expected \(K, 2\)"),
    ):
        with pytest.raises(kind, match=f"^{message}"):
            loss(x, x, *given)
    with pytest.raises(ValueError, match=r"^ids: got a value, expected None: bank is a tensor"):
        loss(x, x, x, labels, labels, ids=labels)
