"""Processes that act as the ranks of a gloo group, kept for the whole test session."""

import contextlib
import multiprocessing
import os
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

WORLD = 5


class FailedError(Exception):
    """An exception on a rank: the text ``type: message``, and the traceback."""


def _answer(pipe, function, args):
    try:
        pipe.send((True, function(*args)))
    except Exception as error:
        shown = f"{type(error).__name__}: {error}"
        pipe.send((False, (shown, traceback.format_exc())))


def start(rank, world, folder, seconds):
    """Make this process a rank of the default group."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), world)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=seconds)
    )


def _work(rank, world, folder, pipe):
    start(rank, world, folder, 60)
    groups = {w: dist.new_group(range(w)) for w in range(1, world + 1)}
    while (job := pipe.recv()) is not None:
        function, world, args = job
        _answer(pipe, function, (groups[world], *args))
    dist.destroy_process_group()


class Ranks:
    """``ranks.run(f, world, *args)`` calls ``f(group, *args)`` on ``world`` ranks at once."""

    def __init__(self, world=WORLD):
        self.folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("spawn")
        # freed memory is returned at once, so that a peak shows the memory in use
        os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)
        self.pipes, self.processes = [], []
        for rank in range(world):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(rank, world, self.folder.name, there))
            process.start()
            self.pipes.append(here)
            self.processes.append(process)
        del os.environ["MALLOC_MMAP_THRESHOLD_"]

    def answers(self, function, world, *args):
        """The return value of every rank, or a :class:`FailedError` if it raised."""
        for pipe in self.pipes[:world]:
            pipe.send((function, world, args))
        found = []
        for rank, pipe in enumerate(self.pipes[:world]):
            assert pipe.poll(120), f"rank {rank} does not answer: a deadlock"
            fine, value = pipe.recv()
            found.append(value if fine else FailedError(*value))
        return found

    def run(self, function, world, *args):
        found = self.answers(function, world, *args)
        for rank, value in enumerate(found):
            if isinstance(value, FailedError):
                raise AssertionError(f"rank {rank}: {value.args[1]}")
        return found

    def close(self):
        for pipe in self.pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self.processes:
            process.join(10)
            process.kill()
        self.folder.cleanup()


def mine(group, sizes, value):
    """This rank's part of the whole batch ``value``."""
    first = sum(sizes[: dist.get_rank(group)])
    return value[first : first + sizes[dist.get_rank(group)]]


def together(parts, whole):
    """The gradient of a tensor: of one that was split, or the sum for one that all ranks have."""
    if all(part.shape == whole.shape for part in parts):
        return torch.stack(parts).sum(0)
    return torch.cat(parts)


def compare(found, want, world, what, rtol=1e-9):
    """Every rank has the value of the whole batch; the average over ranks has its gradients."""
    value, grads, _ = want
    for rank, (mine, _, _) in enumerate(found):
        torch.testing.assert_close(mine, value, rtol=rtol, atol=1e-12, msg=f"{what}, rank {rank}")
    for k, grad in enumerate(grads):
        mean = together([part[1][k] for part in found], grad) / world
        ratio = mean.norm() / grad.norm() if grad.norm() > 1e-12 else torch.ones(())
        assert abs(ratio - 1) < 1e-5, f"{what}, gradient {k}: ratio {ratio:.6f}"
        torch.testing.assert_close(mean, grad, rtol=rtol, atol=1e-11, msg=f"{what}, gradient {k}")
