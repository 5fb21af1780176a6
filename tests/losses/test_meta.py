"""Tensors without values give results without values, of the shapes and dtypes of real ones."""

import pytest
import torch
from losses.test_adjacency import Graph

from contrastloss.losses import LOSSES
from contrastloss.testing import Subject

#: its number of positives is read from values
READS = {"triplet": {"positives": 2}}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_shapes_without_values(name):
    cls = {"adjacency_contrastive": Graph}.get(name, LOSSES[name])
    subject = Subject(cls, READS.get(name, {}))
    real = subject.leaves(subject.inputs(n=8, dtype=torch.float32))
    meta = [v.detach().to("meta").requires_grad_(v.requires_grad) for v in real]
    want, got = subject.rows()(*real), subject.rows()(*meta)
    assert got.is_meta
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    got.sum().backward()
    for value in meta:
        assert value.grad is None if not value.requires_grad else value.grad.is_meta
