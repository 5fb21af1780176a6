"""``python -m fuzz``: a campaign, and the process in which its cases run."""

from __future__ import annotations

import argparse
import sys

from .campaign import campaign, work

parser = argparse.ArgumentParser(prog="fuzz", description="Calls against dense fp64 formulas.")
parser.add_argument("--seconds", type=float, default=60.0, help="how long")
parser.add_argument("--seed", type=int, help="of the first cases; default: a fresh one")
parser.add_argument("--jobs", type=int, default=2, help="processes at once")
parser.add_argument("--only", nargs="*", help="targets; default: all")
parser.add_argument("--work", metavar="FILE", help=argparse.SUPPRESS)
options = parser.parse_args()
if options.work:
    sys.exit(work(options.work, options.seed, options.seconds, options.only))
sys.exit(campaign(options.seconds, options.seed, options.jobs, options.only))
