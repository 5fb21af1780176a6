from math import e, exp, log

import pytest
import torch
from properties import close, every_check, gradients, tensor

from contrastloss import CodebookDiversityLoss
from contrastloss.functional import codebook_diversity
from contrastloss.testing import Subject

FORMS = "entropy", "perplexity"


def frames(n, d, generator):
    return [torch.randn(2, n, 3, 5, generator=generator).double().softmax(-1)]


@pytest.mark.parametrize("form", FORMS)
@every_check
def test_properties(check, form, device):
    check(Subject(CodebookDiversityLoss, {"form": form}, device, thorough=False, make=frames))


def test_by_hand(device):
    # means (1/2, 1/2) and (3/4, 1/4)
    p = tensor([[1, 0], [0.5, 0.5]], [[0, 1], [1, 0]], device=device)
    entropies = log(2), -0.75 * log(0.75) - 0.25 * log(0.25)
    close(codebook_diversity(p), -sum(entropies) / 4)
    want = (4 - 2 - exp(entropies[1])) / 4
    close(codebook_diversity(p, form="perplexity"), want)
    mask = torch.tensor([False, True], device=device)  # means (0, 1) and (1, 0)
    close(codebook_diversity(p, mask=mask), 0.0)
    close(codebook_diversity(p, mask=mask, form="perplexity"), 0.5)


@pytest.mark.parametrize("form", FORMS)
def test_unused_entries_have_a_finite_gradient(form, device):
    p = tensor([[1, 0]], device=device, grad=True)
    (grad,) = gradients(codebook_diversity(p, form=form, eps=exp(-9)), p)
    factor = 1 / 2 if form == "entropy" else 1 / 2 * 1  # the perplexity is 1
    close(grad, [[[factor * (log(e) + 0), factor * -9.0]]])


@pytest.mark.parametrize("form", FORMS)
def test_no_frames(form, device):
    p = torch.full((2, 3, 4), 0.25, device=device, requires_grad=True)
    mask = torch.zeros(2, dtype=torch.bool, device=device)
    for value in (
        codebook_diversity(p, mask=mask, form=form),
        codebook_diversity(p[:0], form=form),
    ):
        assert value.item() == 0.0
        assert not gradients(value, p)[0].any()


def test_errors(device):
    p = torch.ones(3, 2, 4, device=device)
    with pytest.raises(ValueError, match=r"^probabilities: got shape \(2, 4\), expected"):
        codebook_diversity(p[0])
    with pytest.raises(TypeError, match=r"^mask: got dtype torch.float32, expected torch.bool"):
        codebook_diversity(p, mask=p[:, 0, 0])
    with pytest.raises(ValueError, match=r"^mask: got shape \(3, 2\), expected \(3,\)"):
        codebook_diversity(p, mask=p[..., 0] > 0)
