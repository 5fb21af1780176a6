"""``python -m soak``: runs all jobs in a new order, pass after pass, until the time is over."""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from .jobs import Job, draw
from .memory import Readings

#: threads of torch, and threads of Python that call losses at the same time
SETTINGS = ((1, 1), (2, 1), (3, 1), (1, 2), (2, 2))


class Soak:
    """The jobs, and the outcome of each on its first run with a number of torch's threads."""

    def __init__(self, jobs: list[Job], seed: int) -> None:
        self.jobs, self.order = jobs, random.Random(seed)
        self.first: dict[tuple[str, int], str] = {}
        self.noisy: set[str] = set()

    def passed(self, threads: int, callers: int) -> list[str]:
        """Run every job once: a line for each whose outcome is another than at first."""
        jobs = self.order.sample(self.jobs, len(self.jobs))
        together = [j for j in jobs if callers > 1 and j.name not in self.noisy]
        alone = [j for j in jobs if j not in together]
        torch.set_num_threads(threads)
        outcomes = {job.name: self.watched(job) for job in alone}
        with ThreadPoolExecutor(callers, initializer=torch.set_num_threads,
                                initargs=(threads,)) as pool:  # fmt: skip
            outcomes |= dict(zip([j.name for j in together], pool.map(outcome, together),
                                 strict=True))  # fmt: skip
        return list(self.compared(outcomes, threads))

    def watched(self, job: Job) -> str:
        """The outcome; a job that draws noise is noted, as it shares torch's generator with all
        other callers and so must run alone."""
        torch.manual_seed(0)
        before = torch.get_rng_state()
        found = outcome(job)
        if not torch.equal(before, torch.get_rng_state()):
            self.noisy.add(job.name)
        return found

    def compared(self, outcomes: dict[str, str], threads: int) -> Iterator[str]:
        for name, found in outcomes.items():
            want = self.first.setdefault((name, threads), found)
            if found != want:
                yield f"{name}, {threads} threads: {found}, at first {want}"


def outcome(job: Job) -> str:
    """The hash of the results, or the error with which the job's arguments are refused."""
    try:
        return job.run()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=120.0, help="duration, 120")
    parser.add_argument("--jobs", type=int, default=400, help="random steps in a pass, 400")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw and of orders, 0")
    given = parser.parse_args()
    soak, readings = Soak(draw(given.seed, given.jobs), given.seed), Readings()
    began, passes, failures = time.monotonic(), 0, list[str]()
    while passes < 2 * len(SETTINGS) or time.monotonic() - began < 60 * given.minutes:
        threads, callers = SETTINGS[passes % len(SETTINGS)]
        failures += soak.passed(threads, callers)
        passes += 1
        gc.collect()
        minutes = (time.monotonic() - began) / 60
        readings.take(minutes)
        print(f"{minutes:6.1f} min: pass {passes}, {threads} threads, {callers} callers, "
              f"{readings.last:.1f} MB, {len(failures)} failures", flush=True)  # fmt: skip
    refused = sum(": " in found for found in soak.first.values())
    print(f"soak: {passes} passes of {len(soak.jobs)} jobs, of which {len(soak.noisy)} draw noise; "
          f"{refused} of {len(soak.first)} outcomes are refusals; {readings}")  # fmt: skip
    for line in failures[:20]:
        print(f"FAILED: {line}")
    if not readings.flat:
        print("FAILED: the memory grows")
    return 1 if failures or not readings.flat else 0


if __name__ == "__main__":
    sys.exit(main())
