"""``python -m fuzz``: runs a campaign, or is one of its worker processes."""

from __future__ import annotations

import argparse
import sys

from .campaign import campaign, work

parser = argparse.ArgumentParser(prog="fuzz", description="Random calls against dense formulas.")
parser.add_argument("--seconds", type=float, default=60.0, help="duration of the campaign")
parser.add_argument("--seed", type=int, help="seed of the first cases; default: random")
parser.add_argument("--jobs", type=int, default=2, help="number of worker processes")
parser.add_argument("--only", nargs="*", help="targets; default: all")
parser.add_argument("--work", metavar="FILE", help=argparse.SUPPRESS)
options = parser.parse_args()
if options.work:
    sys.exit(work(options.work, options.seed, options.seconds, options.only))
sys.exit(campaign(options.seconds, options.seed, options.jobs, options.only))
