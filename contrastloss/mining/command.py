"""Finds hard negatives for queries in a corpus of embeddings on disk, exactly, in blocks of 256 MB.
Interrupted, the same command goes on where it was. The output has a row for each query: its id, the
ids of its negatives and their scores."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow.parquet as pq
from tqdm import tqdm  # type: ignore[import-untyped]

from .. import arguments
from .job import mine_files

__all__ = ["add_arguments", "main"]

#: options that mine_files has under the same name
OPTIONS = (
    *("k", "positives", "query_ids", "corpus_ids", "column", "device", "skip", "range_max"),
    *("sampling", "seed", "absolute_margin", "relative_margin", "max_score", "min_score"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = __doc__
    add, count = parser.add_argument, arguments.integer
    add("queries", type=Path, metavar="QUERIES", help=".npy, .safetensors or .parquet")
    add("corpus", type=Path, metavar="CORPUS", help="the same, of embeddings of the same length")
    add("--k", type=count(1), default=50, help="negatives of a query, %(default)s")
    add("--output", type=arguments.output("parquet"), required=True, help="a .parquet file")
    add(
        "--positives", type=Path, metavar="FILE",
        help=".parquet with the columns query and positive, of ids; or .npy of rows of the corpus",
    )  # fmt: skip
    add("--query-ids", type=Path, metavar="FILE", help=".npy; ids otherwise lie beside embeddings")
    add("--corpus-ids", type=Path, metavar="FILE", help="in a column id, or are numbers of rows")
    add("--column", metavar="NAME", help="the column or tensor with embeddings, if there are more")
    add("--dot", action="store_true", help="inner products instead of cosines")
    add("--device", type=arguments.device, default="cpu", help="%(default)s")
    add = parser.add_argument_group("rules, as of mining.hard_negatives").add_argument
    add("--skip", type=count(0), default=0, metavar="R", help="leave out so many of the best")
    add(
        "--margin", type=float, dest="absolute_margin",
        help="how much less than its positive a negative scores at least",
    )  # fmt: skip
    add("--relative-margin", type=float, help="the same, as a share of the positive's score")
    add("--max-score", type=float)
    add("--min-score", type=float)
    add("--range-max", type=count(1), metavar="R", help="look only at so many of the best")
    add("--sampling", choices=("top", "random"), default="top", help="of these; %(default)s")
    add("--seed", type=count(0), default=0, help="of random ones")
    parser.set_defaults(exit=parser.exit)


def main(given: argparse.Namespace) -> int:
    options = {name: getattr(given, name) for name in OPTIONS}
    form = "{percentage:3.0f}% |{bar}| {n_fmt} of {total_fmt} [{rate_fmt}, {remaining} left]"
    with tqdm(unit=" pairs", unit_scale=True, bar_format=form, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            if bar.total is None:
                bar.reset(total)
                bar.initial = bar.n = bar.last_print_n = done  # what was done before
            bar.update(done - bar.n)
            bar.refresh()

        try:
            mine_files(
                given.queries, given.corpus, given.output,
                normalize=not given.dot, progress=progress, **options,
            )  # fmt: skip
        except ValueError as error:
            bar.close()
            given.exit(1, f"mine: {error}\n")
        except KeyboardInterrupt:
            bar.close()
            given.exit(130, "mine: interrupted; the same command goes on from here\n")
    print(f"{pq.read_metadata(given.output).num_rows:,} queries in {given.output}")
    return 0
