"""Ranks that know different times of backends. A module of its own, since their processes import
it."""

import warnings

import torch
import torch.distributed as dist

from contrastloss.backends import table
from contrastloss.backends.machine import stamp
from contrastloss.backends.table import Entry, Table, Time
from contrastloss.channel import LSE
from contrastloss.distributed import pair_stats, peers

CPU = torch.device("cpu")


def told(group, seconds, deterministic):
    """What this rank is told in two calls, if the reference takes ``seconds[rank]``; None: its
    times are not known."""
    found, mine = [], seconds[dist.get_rank(group)]
    now = stamp(CPU, "reference")
    times = (Time("softmax", False, "float32", 4, 4, 4, mine or 1.0),)
    peers._SAID.clear()
    table._TABLES[CPU] = Table([Entry("reference", now, now, None, times)] if mine else [])
    torch.use_deterministic_algorithms(deterministic)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(2):
                x = torch.eye(4)
                pair_stats(x, x, (LSE(),), group=group)
        found += [str(each.message) for each in caught]
    except ValueError as error:
        found.append(f"ValueError: {error}")
    finally:
        torch.use_deterministic_algorithms(False)
        del table._TABLES[CPU]
    return found
