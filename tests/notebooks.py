"""The notebooks of docs/notebooks, run from their first cell to their last.

``make notebooks`` runs them and compares what they print with what is stored in them. Numbers may
differ, as they do between machines; what a number has to be is an ``assert`` in a cell. ``make
notebooks RECORD=1`` stores the outputs of the run.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
#: what is kept of a notebook's metadata: nothing of the machine that it ran on
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
#: seconds that a cell may take
LIMIT = 600


def run(path: Path) -> Any:
    """The notebook with the outputs of a run; a cell that fails raises ``CellExecutionError``."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=LIMIT,
        kernel_name="python3",
        coalesce_streams=True,
        record_timing=False,  # times of day
        extra_arguments=[
            "--log-level=ERROR"
        ],  # no word on how it is reached, by a port of the host
        resources={"metadata": {"path": str(path.parent)}},
    )
    done = client.execute()
    done.metadata = nbformat.from_dict(METADATA)
    return done


def outline(notebook: Any) -> Iterator[str]:
    """What the cells show, a line for each line of text and for each image, without numbers. Of a
    cell with the tag "varies", only of which kind it is: its text depends on the machine."""
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        yield f"cell {cell['id']}"
        for output in cell["outputs"]:
            shown = output.get("data", {})
            text = "".join(output.get("text", shown.get("text/plain", "")))
            kinds = [output.get("name", output["output_type"]), *sorted(shown)]
            if "varies" in cell["metadata"].get("tags", ()):
                yield " ".join(kinds)
                continue
            yield from (f"{' '.join(kinds)}: {without_numbers(line)}" for line in text.splitlines())


def without_numbers(text: str) -> str:
    masked = re.sub(r"-?\d+(?:[.,]\d+)*(?:e[+-]?\d+)?", "#", text)
    return re.sub(r"\s+", " ", masked).strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="store the outputs")
    parser.add_argument("notebooks", nargs="*", type=Path, default=NOTEBOOKS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as empty:
        # neither settings of the user nor the network; nothing is left in the user's folders
        os.environ |= {"IPYTHONDIR": empty, "JUPYTER_RUNTIME_DIR": empty, "HF_HUB_OFFLINE": "1"}
        failed = [path.name for path in args.notebooks if not passes(path, args.record)]
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def passes(path: Path, record: bool) -> bool:
    import nbformat
    from nbclient.exceptions import CellExecutionError

    start = time.perf_counter()
    try:
        done = run(path)
    except CellExecutionError as error:
        print(f"{path.name}: {error}")
        return False
    print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)
    stored = nbformat.read(path, as_version=4)
    if record:
        nbformat.write(done, path)
        return True
    found = difflib.unified_diff([*outline(stored)], [*outline(done)], "stored", "of this run",
                                 lineterm="", n=1)  # fmt: skip
    lines = list(found)
    print("\n".join(lines), end="\n" if lines else "")
    return not lines


if __name__ == "__main__":
    sys.exit(main())
