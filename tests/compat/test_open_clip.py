"""open_clip's losses, beside open_clip 3.3."""

import logging

import pytest
import torch

from compat import over_ranks
from compat.agree import agree, close, leaf, over_the_ranks, units
from compat.over_ranks import number
from compat.rivals import pair
from contrastloss.compat import hand_over

ours, theirs = pair("open_clip")

SIZES = [(1, 1), (2, 3), (3, 8), (17, 5), (64, 32), (65, 33), (130, 7)]
sizes = pytest.mark.parametrize(("n", "d"), SIZES, ids=str)


@sizes
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("output_dict", [False, True])
@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss"])
def test_pairs(name, n, d, bias, output_dict):
    x, y, scale, shift = units(n, d), units(n, d), number(14.3), number(-2.5)
    losses = (getattr(library, name)() for library in (ours, theirs))
    given = (x, y, scale, shift if bias else None)
    agree(*losses, given, [x, y, scale, shift], output_dict=output_dict)


def test_features_are_not_normalised_and_numbers_may_have_one_element():
    x, y, scale = leaf(9, 4), leaf(9, 4), number([0.7])
    for numbers in ((scale,), (2.0, 1.0)):
        agree(ours.ClipLoss(), theirs.ClipLoss(), (x, y, *numbers), [x, y, scale])


@sizes
@pytest.mark.parametrize("output_dict", [False, True])
@pytest.mark.parametrize("weights", [(2.0, 1.0), (0.5, 0.0)], ids=str)
def test_captions(n, d, weights, output_dict):
    x, y, scale, logits = units(n, d), units(n, d), number(5.0), leaf(n, 6, 11)
    labels = torch.randint(0, 11, (n, 6))
    labels[:, 0] = 3
    losses = (library.CoCaLoss(*weights, pad_id=0) for library in (ours, theirs))
    agree(*losses, (x, y, logits, labels, scale, output_dict), [x, y, scale, logits])


@sizes
@pytest.mark.parametrize("learns", [False, True], ids=["teacher", "teacher that learns"])
@pytest.mark.parametrize("output_dict", [False, True])
def test_distillation(n, d, learns, output_dict):
    x, y, scale = units(n, d), units(n, d), number(14.3)
    teacher = [units(n, d + 2), units(n, d + 2), number(30.0)]
    if not learns:
        teacher = [value.detach() for value in teacher]
    leaves = [x, y, scale, *(teacher if learns else ())]
    losses = ours.DistillClipLoss(), theirs.DistillClipLoss()
    agree(*losses, (x, y, scale, *teacher, output_dict), leaves)


def masked(library):
    class Masked(library.ClipLoss):
        def get_logits(self, image_features, text_features, logit_scale, logit_bias=None):
            found = super().get_logits(image_features, text_features, logit_scale, logit_bias)
            return tuple(logits - 3 * torch.eye(len(logits)) for logits in found)

        def get_ground_truth(self, device, num_logits):
            return super().get_ground_truth(device, num_logits).flip(0)

    return Masked()


def squared(library):
    class Squared(library.DistillClipLoss):
        def dist_loss(self, teacher_logits, student_logits):
            return (teacher_logits - student_logits).square().mean()

    return Squared()


def test_what_a_subclass_overrides_is_used():
    leaves = x, y, scale, _ = units(9, 4), units(9, 4), number(3.0), number(0.5)
    agree(masked(ours), masked(theirs), leaves, leaves)
    agree(*(over_ranks.overridden(library)() for library in (ours, theirs)), leaves, leaves)
    teacher = units(9, 5).detach(), units(9, 5).detach(), number(20.0).detach()
    agree(squared(ours), squared(theirs), (x, y, scale, *teacher), [x, y, scale])


def test_what_subclasses_call():
    """The hooks themselves, which other code calls, too."""
    leaves = units(5, 4), units(5, 4), number(3.0), number(0.5)
    for name in ("ClipLoss", "SigLipLoss"):
        agree(*(getattr(library, name)().get_logits for library in (ours, theirs)), leaves, leaves)
    for rank, world in ((0, 1), (2, 3)):
        given = {"local_loss": True, "rank": rank, "world_size": world, "cache_labels": True}
        mine, other = ours.ClipLoss(**given), theirs.ClipLoss(**given)
        for n in (4, 4, 6):
            agree(mine.get_ground_truth, other.get_ground_truth, (leaves[0].device, n), [])
        assert mine.prev_num_logits == other.prev_num_logits
    for negative in (False, True):
        given = leaves[0].device, torch.float64, 5, negative
        agree(*(library.SigLipLoss().get_ground_truth for library in (ours, theirs)), given, [])


def test_horovod_is_handed_over(monkeypatch, caplog):
    x, y = units(5, 4), units(5, 4)
    hand_over.say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "contrastloss.compat"):
        for _ in range(2):
            found = ours.ClipLoss(use_horovod=True)(x, y, 3.0)
    assert len(caplog.records) == 1
    assert "ClipLoss: use_horovod=True is computed by open_clip.loss" in caplog.text
    close(found, theirs.ClipLoss()(x, y, 3.0), "value")
    monkeypatch.setattr(ours, "MODULE", "open_clip_that_is_not_there.loss")
    with pytest.raises(NotImplementedError, match="use_horovod=True: not computed by contrastloss"):
        ours.ClipLoss(use_horovod=True)(x, y, 3.0)


def test_bad_options():
    with pytest.raises(ValueError, match="dist_impl: got 'ring', expected one of bidir"):
        ours.SigLipLoss(dist_impl="ring")
    with pytest.raises(ValueError, match="y"):
        ours.ClipLoss()(units(3, 4), units(2, 4), 1.0)


# ---- over ranks ----------------------------------------------------------------------------------


MODES = [(local, grad) for local in (False, True) for grad in (False, True)]
SPREAD = [
    (name, {"local_loss": local, "gather_with_grad": grad})
    for name in ("ClipLoss", "DistillClipLoss")
    for local, grad in MODES
] + [("SigLipLoss", {"dist_impl": way}) for way in (None, "shift", "reduce", "gather")]


@pytest.mark.parametrize("n", [1, 5, 33])
@pytest.mark.parametrize(("name", "options"), SPREAD, ids=str)
def test_over_ranks(world, name, options, n):
    over_the_ranks(world, over_ranks.open_clip, 2, name, options, n)


def test_what_a_subclass_overrides_is_used_over_ranks(world):
    over_the_ranks(world, over_ranks.signed, 2, 5)


def test_the_default_over_ranks_is_said_once(world):
    (text,), *_ = world.run(over_ranks.said, 4, over_ranks.open_clip, "ClipLoss", {}, 3)
    assert text == (
        "ClipLoss: as in its library, gradients averaged over the 4 ranks are 1/4 of those of the "
        "whole batch; local_loss=True, gather_with_grad=True gives the whole"
    )
    (text,) = world.run(
        over_ranks.said, 4, over_ranks.open_clip, "ClipLoss", {"local_loss": True}, 3
    )[0]
    assert "with local_loss=True alone rows get no gradient as columns" in text
    whole = {"local_loss": True, "gather_with_grad": True}
    assert world.run(over_ranks.said, 4, over_ranks.open_clip, "ClipLoss", whole, 3)[0] == []
