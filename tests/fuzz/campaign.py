"""Runs cases in separate processes, so that a crash is reported and does not end the campaign.

A worker runs the targets in turn, some cases of each at a time. It writes every case to a file
before it runs it: if the worker dies, the file shows the case that killed it. Hypothesis draws the
cases from a seed, and shrinks a case that fails.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import hypothesis

#: cases of one target per round
CASES = 60
#: seconds that a worker may run beyond its time, to shrink one case
GRACE = 120


def targets(only=None):
    from contrastloss.backends import cpu

    from . import one_pass, raw, targets

    found = dict(targets.TARGETS)
    if cpu.instruction_sets():
        found |= one_pass.TARGETS | raw.TARGETS
    return {name: target for name, target in found.items() if not only or name in only}


def run(target, seed, cases, note):
    """Run ``cases`` cases of one target: the failure as text or None, and how many cases ran."""
    strategy, check = target
    count = 0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=cases,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )
    @hypothesis.given(strategy)
    def property_(case):
        nonlocal count
        count += 1
        note(case)
        check(case)

    try:
        property_()
    except Exception:
        return traceback.format_exc(limit=-4), count
    return None, count


def work(folder, seed, seconds, only):
    """The main loop of a worker: prints one line of JSON per round."""
    chosen, end = targets(only), time.monotonic() + seconds
    last = (pathlib.Path(folder) / "last").open("wb", buffering=0)
    while True:
        for name, target in chosen.items():

            def note(case, name=name, seed=seed):
                last.seek(0)
                text = f"target {name}, seed {seed}: {case!r}".encode()
                last.write(text.ljust(4096))

            failure, count = run(target, seed, CASES, note)
            print(json.dumps({"target": name, "seed": seed, "cases": count, "failure": failure}))
            sys.stdout.flush()
            if time.monotonic() > end:
                return 0
        seed += 1


class Worker:
    """A worker process, its output, and the last case that it wrote down."""

    def __init__(self, seed, seconds, only):
        self.seed, self.folder = seed, tempfile.TemporaryDirectory()
        self.output = (pathlib.Path(self.folder.name) / "output").open("w+")
        command = [sys.executable, "-m", "fuzz", "--work", self.folder.name]
        command += ["--seed", str(seed), "--seconds", str(seconds)]
        command += ["--only", *only] if only else []
        paths = [str(pathlib.Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            "OMP_WAIT_POLICY": "passive",  # there may be more threads than processors
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        self.process = subprocess.Popen(
            command, stdout=self.output, stderr=subprocess.STDOUT, env=environment
        )
        self.deadline = time.monotonic() + seconds + GRACE

    def ended(self):
        if self.process.poll() is None and time.monotonic() > self.deadline:
            self.process.kill()
            self.process.wait()
        return self.process.poll() is not None

    def results(self):
        """(cases by target, failures)."""
        self.output.seek(0)
        counts, failures, other = collections.Counter(), [], []
        for line in self.output.read().splitlines():
            try:
                found = json.loads(line)
                counts[found["target"]] += found["cases"]
                if found["failure"]:
                    failures.append("target {target}, seed {seed}\n{failure}".format(**found))
            except (ValueError, TypeError, KeyError):
                other.append(line)
        code = self.process.returncode
        if code:
            why = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            last = pathlib.Path(self.folder.name, "last")
            case = last.read_text(errors="replace").strip() if last.exists() else "before any case"
            failures.append("\n".join([f"a worker ended with {why}, in", case, *other[-20:]]))
        return counts, failures


def campaign(seconds, seed=None, jobs=2, only=None):
    """Run workers for some seconds, and replace those that die; returns 1 if anything failed."""
    seed = random.SystemRandom().randrange(1 << 30) if seed is None else seed
    print(f"fuzz: seed {seed}, {seconds:g} s, {jobs} jobs")
    end, workers, counts, failures = time.monotonic() + seconds, [], collections.Counter(), []

    def start(k):
        left = max(end - time.monotonic(), 1.0)
        # seeds far apart, so that no two workers draw the same cases
        workers.append(Worker(seed + k * 1_000_000, left, only))

    for k in range(jobs):
        start(k)
    started = jobs
    while workers:
        time.sleep(0.1)
        for worker in [w for w in workers if w.ended()]:
            workers.remove(worker)
            found, failed = worker.results()
            counts += found
            failures += failed
            if worker.process.returncode and time.monotonic() < end:
                start(started)
                started += 1
    shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"fuzz: {sum(counts.values())} cases: {shown}")
    for failure in failures[:20]:
        print(f"\nFAILED: {failure}")
    print(f"fuzz: {len(failures)} failures")
    return 1 if failures or not counts else 0
