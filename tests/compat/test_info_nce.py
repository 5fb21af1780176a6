"""info-nce-pytorch's function and module, beside version 0.1.4."""

import pytest
import torch

from compat.agree import agree, leaf
from compat.rivals import pair

ours, theirs = pair("info_nce")

NEGATIVES = {"batch": None, "unpaired": lambda n, d: (7, d), "paired": lambda n, d: (n, 5, d)}


@pytest.mark.parametrize(
    ("n", "d"), [(1, 1), (2, 3), (17, 5), (64, 32), (65, 8), (130, 7)], ids=str
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("mode", NEGATIVES)
def test_values(mode, reduction, n, d):
    given = [leaf(n, d), leaf(n, d)]
    options = {"temperature": 0.07, "reduction": reduction}
    if mode != "batch":
        given.append(leaf(*NEGATIVES[mode](n, d)))
        options["negative_mode"] = mode
    agree(ours.InfoNCE(**options), theirs.InfoNCE(**options), given, given)
    agree(ours.info_nce, theirs.info_nce, given, given, **options)


def test_defaults():
    given = [leaf(6, 4), leaf(6, 4), leaf(3, 4)]
    agree(ours.InfoNCE(), theirs.InfoNCE(), given, given)
    agree(ours.info_nce, theirs.info_nce, given, given)


def test_options_that_are_set_later():
    given = [leaf(6, 4), leaf(6, 4)]
    losses = [library.InfoNCE() for library in (ours, theirs)]
    for loss in losses:
        loss.temperature, loss.reduction = 0.5, "sum"
    agree(*losses, given, given)


BAD = {
    "query": ([torch.ones(3), torch.ones(3, 2)], {}, "query: got 1 dimensions, expected 2"),
    "key": ([torch.ones(3, 2), torch.ones(3)], {}, "positive_key: got 1 dimensions, expected 2"),
    "rows": ([torch.ones(3, 2), torch.ones(4, 2)], {}, "positive_key: got 4 rows, expected .* 3"),
    "features": ([torch.ones(3, 2), torch.ones(3, 5)], {}, "positive_key: got 5 components"),
    "paired": (
        [torch.ones(3, 2), torch.ones(3, 2), torch.ones(4, 2)],
        {"negative_mode": "paired"},
        "negative_keys: got 2 dimensions, expected 3",
    ),
    "pairs": (
        [torch.ones(3, 2), torch.ones(3, 2), torch.ones(4, 6, 2)],
        {"negative_mode": "paired"},
        "negative_keys: got 4 rows, expected those of query, 3",
    ),
    "reduction": (
        [torch.ones(3, 2), torch.ones(3, 2)],
        {"reduction": "max"},
        "reduction: got 'max'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_both_refuse(case):
    given, options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        ours.info_nce(*given, **options)
    with pytest.raises(ValueError, match=r"\w"):  # in words of their own
        theirs.info_nce(*given, **options)
