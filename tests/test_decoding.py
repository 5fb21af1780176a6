import pytest
import torch
from properties import E1, E2, close, tensor
from torch.nn.functional import cosine_similarity

from contrastloss.decoding import contrastive_search, isotropy


def test_search_by_hand(device, backend):
    # two candidates; one of them repeats a token of the context, unless that is padding
    candidates = tensor([E1, E2], [E1, E2], device=device)
    context = tensor([[2, 0], [-1, 0]], [[0, 5], [3, 4]], device=device)
    p = tensor([0.9, 0.1], [0.7, 0.2], device=device)
    want = [[0.36 - 0.6, 0.04], [0.28 - 0.36, 0.08 - 0.6]]
    close(contrastive_search(p, candidates, context, backend=backend), want)
    valid = torch.tensor([[False, True], [False, False]], device=device)
    got = contrastive_search(p, candidates, context, alpha=0.5, valid=valid, backend=backend)
    close(got, [[0.45 + 0.5, 0.05], [0.35, 0.1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_search_is_the_dense_formula(device, backend, dtype):
    candidates, context = (torch.randn(3, n, 8, device=device).to(dtype) for n in (4, 11))
    p = torch.rand(3, 4, device=device).to(dtype)
    valid = torch.rand(3, 11, device=device) < 0.6
    got = contrastive_search(p, candidates, context, alpha=0.3, valid=valid, backend=backend)
    cosine = cosine_similarity(candidates.double()[:, :, None], context.double()[:, None], dim=3)
    penalty = cosine.masked_fill(~valid[:, None], -torch.inf).amax(2)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), 0.7 * p.double() - 0.3 * penalty, rtol=0, atol=1e-6)


def test_isotropy_by_hand(device):
    # cosines 0.6, 0, 0.8, and 1, -1, -1
    h = tensor([E1, [6, 8], E2], [E1, E1, [-2, 0]], device=device)
    close(isotropy(h), [1 - 1.4 / 3, 1 + 1 / 3])
    valid = torch.tensor([[True, True, False], [False, False, True]], device=device)
    close(isotropy(h, valid), [0.4, 1.0])
    close(isotropy(h[0, :2]), 0.4)


def test_isotropy_is_the_mean_over_pairs(device):
    h = torch.randn(2, 3, 17, 5, device=device, dtype=torch.float64)
    cosine = cosine_similarity(h.unsqueeze(-2), h.unsqueeze(-3), dim=-1)
    close(isotropy(h), 1 - (cosine.sum((-2, -1)) - 17) / (17 * 16))


def test_errors():
    p, candidates, context = torch.rand(2, 3), torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    for name, message, values, options in (
        ("alpha", r"got 1.5, expected a number from 0 to 1", (p, candidates, context),
         {"alpha": 1.5}),
        ("candidates", r"got shape \(3, 4\), expected \(2, 3, D\)", (p, candidates[0], context),
         {}),
        ("context", r"got shape \(1, 5, 4\), expected \(2, T, 4\)", (p, candidates, context[:1]),
         {}),
        ("candidates", r"got shape \(2, 3, 4\), expected \(2, 2, D\)",
         (p[:, 1:], candidates, context), {}),
        ("valid", r"got shape \(2, 4\), expected \(2, 5\)", (p, candidates, context),
         {"valid": torch.ones(2, 4, dtype=torch.bool)}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name}: {message}"):
            contrastive_search(*values, **options)
    with pytest.raises(TypeError, match=r"^valid: got list, expected a tensor"):
        isotropy(context, [True])
    with pytest.raises(ValueError, match=r"^h: got shape \(4,\), expected \(..., T, D\)"):
        isotropy(torch.ones(4))
