"""What is stored in the notebooks is small, of one run and tells nothing of the machine. `make
notebooks` runs them; where its packages are installed, it is tried on small ones here."""

import json
import re
import socket

import pytest
from notebooks import METADATA, NOTEBOOKS, ROOT, main, outline

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def outputs(path):
    return [output for cell in cells(path, "code") for output in cell["outputs"]]


def test_there_are_two():
    assert [path.name for path in NOTEBOOKS] == ["sentences.ipynb", "start.ipynb"]


@every
def test_its_outputs_are_of_one_run(path):
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    assert {output["output_type"] for output in outputs(path)} <= {"stream", "display_data"}
    assert {output.get("name", "stdout") for output in outputs(path)} == {"stdout"}
    assert sum("".join(cell["source"]).count("assert ") for cell in code) >= 3


@every
def test_it_is_small(path):
    assert path.stat().st_size < 200_000


@every
def test_it_tells_nothing_of_the_machine(path):
    notebook = json.loads(path.read_text())
    assert notebook["metadata"] == METADATA
    assert all(cell["metadata"] in ({}, {"tags": ["varies"]}) for cell in notebook["cells"])
    printed = "\n".join(
        "".join(part)
        for output in outputs(path)
        for part in (output.get("text", ""), output.get("data", {}).get("text/plain", ""))
    )
    assert re.findall(r"(?<![\w.<])(?:/\w[\w.-]*){2,}|\b[A-Z]:\\\\", printed) == []
    assert re.findall(r"\b\d\d?:\d\d\b|\b20\d\d-\d\d", printed) == []
    assert socket.gethostname() not in printed


@every
def test_its_links_lead_to_files(path):
    prose = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    links = [link for link in re.findall(r"\]\(([^)#]+)", prose) if "://" not in link]
    assert links
    assert [link for link in links if not path.parent.joinpath(link).exists()] == []


def notebook(*sources):
    code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    made = [{**code, "id": f"c{k}", "source": source} for k, source in enumerate(sources)]
    return {"cells": made, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def test_what_is_compared():
    made = notebook("", "")
    stream = {"output_type": "stream", "name": "stdout"}
    made["cells"][0]["outputs"] = [{**stream, "text": ["loss   3.25, of  10\n", "-1e-05"]}]
    image = {"image/png": "abc", "text/plain": ["<Figure size 10x20>"]}
    made["cells"][1]["outputs"] = [{"output_type": "display_data", "data": image}]
    assert list(outline(made)) == [
        "cell c0", "stdout: loss #, of #", "stdout: #",
        "cell c1", "display_data image/png text/plain: <Figure size #x#>",
    ]  # fmt: skip
    made["cells"][0]["metadata"] = {"tags": ["varies"]}
    assert list(outline(made))[:3] == ["cell c0", "stdout", "cell c1"]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs `make notebooks` on a notebook of these cells; its exit status."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    path = tmp_path / "small.ipynb"

    def call(*sources, record=False):
        stored = json.loads(path.read_text())["cells"] if path.exists() else []
        made = notebook(*sources)
        for cell, old in zip(made["cells"], stored, strict=False):
            cell["outputs"] = old["outputs"]
        path.write_text(json.dumps(made))
        monkeypatch.setattr("sys.argv", ["notebooks", str(path), *["--record"] * record])
        return main()

    return call


def test_it_records_and_compares(command, capsys):
    assert command("print('loss', 3)", "x = 1\nx", record=True) == 0
    assert command("print('loss', 4)", "x = 2\nx") == 0
    assert command("print('recall', 4)", "x = 2\nx") == 1
    assert "-stdout: loss #\n+stdout: recall #" in capsys.readouterr().out


@pytest.mark.parametrize("cell", ["assert 1 > 2", "import sys; print('no', file=sys.stderr)"])
def test_a_cell_that_fails_or_warns(command, cell):
    assert command("x = 1", cell) == 1


def test_ci_runs_them():
    assert re.search(r"^make\b.* notebooks\b", (ROOT / ".ci/run").read_text(), re.MULTILINE)
