"""``python -m golden``: compares the outputs of this tree with the record, or writes the record."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ranks import Ranks

from contrastloss.backends import cpu
from contrastloss.losses import LOSSES

from .record import differences, machine, record

FOLDER = Path(__file__).parent / "outputs"
#: tolerance for numbers, if the record is of another torch or machine, where bits cannot be equal
CLOSE = 1e-2


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="golden", description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the record of this tree")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the record is")
    parser.add_argument("--only", nargs="*", metavar="LOSS", help="losses; default: all")
    parser.add_argument("--paths", nargs="*", metavar="PATH", help="reference, amx, avx512, ...")
    return parser.parse_args()


def main() -> int:
    options, failed = parse(), 0
    names = options.only or sorted(LOSSES)
    ranks = Ranks(2)
    try:
        for path in options.paths or ["reference", *cpu.instruction_sets()]:
            got, file = record(path, names, ranks), options.folder / f"{path}.json"
            held = json.loads(file.read_text()) if file.exists() else None
            if options.record:
                failed |= not write(file, held if options.only else None, got)
                continue
            if held is None:
                print(f"{path}: there is no record", file=sys.stderr)
                failed = 1
                continue
            want = {name: held["losses"][name] for name in names if name in held["losses"]}
            same = held["machine"] == machine()
            lines = list(differences(got, want, None if same else CLOSE))
            sort = "bits" if same else f"numbers, of a record of {held['machine']}"
            print(f"{path}: {len(lines)} of {sum(map(len, got.values()))} cases differ ({sort})")
            for line in lines[:40]:
                print(f"  {line}")
            failed |= bool(lines)
    finally:
        ranks.close()
    return failed


def write(file: Path, held: dict | None, found: dict) -> bool:
    """Write the record, one loss per line, with the other losses that ``held`` has. False if these
    are of another machine."""
    if held is not None and held["machine"] != machine():
        print(f"{file.stem}: a record of {held['machine']}: record all losses", file=sys.stderr)
        return False
    found = dict(sorted(((held or {"losses": {}})["losses"] | found).items()))
    file.parent.mkdir(exist_ok=True)
    lines = [f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}"
             for name, value in found.items()]  # fmt: skip
    body = ",\n".join(lines)
    file.write_text(f'{{"machine": {json.dumps(machine())}, "losses": {{\n{body}\n}}}}\n')
    return True


if __name__ == "__main__":
    sys.exit(main())
