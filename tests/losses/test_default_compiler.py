"""Compiles and exports every loss with the default compiler; other tests only trace most losses."""

import pytest
from losses.test_adjacency import Graph
from losses.test_mochi import Drawn

from contrastloss.losses import LOSSES
from contrastloss.testing import Subject
from contrastloss.testing.running import check_compile, check_export

#: a graph given as tensors, and random numbers given as an input
ADAPTED = {"adjacency_contrastive": Graph, "mochi": Drawn}


@pytest.mark.extra
@pytest.mark.parametrize("check", [check_compile, check_export], ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_default_compiler(check, name, device):
    check(Subject(ADAPTED.get(name, LOSSES[name]), {}, device))
