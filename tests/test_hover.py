"""What an editor shows of a name, as a language server (pyright's) answers: summary, formula, every
option with those of bases, and the place of the code."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

import contrastloss
from contrastloss.losses import LOSSES

pytestmark = pytest.mark.xdist_group("hover")  # one server
ROOT = Path(contrastloss.__file__).parents[1]
NAMES = [
    *(f"functional.{name}" for name in LOSSES), *(cls.__name__ for cls in LOSSES.values()),
    "MatryoshkaLoss", "LogitScale", "GradCache", "EmbeddingQueue", "Monitor",
    "ops.pair_stats", "ops.pair_topk", "ops.gather_scores", "ops.sort_network",
    "mining.hard_negatives", "mining.mine_files", "metrics.recall_at_k", "plots.curves",
    "sorting.sort", "mixing.hard_mixtures", "decoding.isotropy",
]  # fmt: skip


class Server:
    """pyright's language server, with one file open that has a name in each line."""

    def __init__(self, file, names):
        code = "from basedpyright.langserver import main; main()"
        command = [sys.executable, "-c", code, "--stdio"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        self.uri, self.calls = file.as_uri(), 0
        folder = {"uri": file.parent.as_uri(), "name": "project"}
        can = {"textDocument": {"hover": {"contentFormat": ["markdown"]}}}
        self.ask("initialize", processId=None, capabilities=can, workspaceFolders=[folder])
        self.send(method="initialized", params={})
        self.lines = ["import contrastloss", *(f"contrastloss.{name}" for name in names)]
        document = {"uri": self.uri, "languageId": "python", "version": 1}
        document["text"] = "\n".join(self.lines)
        self.send(method="textDocument/didOpen", params={"textDocument": document})

    def send(self, **message):
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def ask(self, method, **params):
        self.calls += 1
        self.send(id=self.calls, method=method, params=params)
        while True:
            size = 0
            while line := self.process.stdout.readline().strip():
                if line.startswith(b"Content-Length"):
                    size = int(line.split(b":")[1])
            message = json.loads(self.process.stdout.read(size))
            if "method" not in message:
                return message["result"]
            if "id" in message:  # a question of the server
                self.send(id=message["id"], result=None)

    def about(self, what, name):
        line = self.lines.index(f"contrastloss.{name}")
        place = {"line": line, "character": len(self.lines[line]) - 1}
        return self.ask(f"textDocument/{what}", textDocument={"uri": self.uri}, position=place)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    file = tmp_path_factory.mktemp("project") / "train.py"
    (file.parent / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    made = Server(file, [*NAMES, "presets.clmr"])
    yield made
    made.ask("shutdown")
    made.send(method="exit")
    made.process.wait(timeout=60)


def plain(text):
    """Without what Markdown adds: marks of code, escapes, and spaces that last."""
    text = re.sub(r"\\([_*\[\]<>])", r"\1", text.replace("&nbsp;", " ").replace("`", ""))
    return " ".join(text.split())


def formulas(doc):
    """Those that have a paragraph."""
    return re.findall(r"^:math:`([^`]+)`$", doc, re.MULTILINE)


def missing(name, shown):
    """What of its docstring and signature an editor does not show."""
    value = eval(f"contrastloss.{name}")
    doc, said = inspect.getdoc(value), shown.partition("---")[2]
    parts = [doc.split("\n\n")[0].split(":")[0], *formulas(doc)]
    lacks = [part for part in map(plain, parts) if part not in shown]
    options = inspect.signature(value).parameters
    lacks += [option for option in options if not re.search(rf"\b{option}\b", shown)]
    cls = LOSSES.get(name.removeprefix("functional."), value)
    names = [field.name for field in fields(cls)] if is_dataclass(cls) else []
    return lacks + [f"{n}: ..." for n in names if not re.search(rf"\b{n}\b[\w, ]*: ", said)]


def test_it_shows_summary_formula_and_options(server):
    shown = {name: server.about("hover", name)["contents"]["value"] for name in NAMES}
    lacks = {name: missing(name, plain(text)) for name, text in shown.items()}
    assert {name: parts for name, parts in lacks.items() if parts} == {}


def test_it_leads_to_the_code(server):
    astray = {}
    for name in [*NAMES, "presets.clmr"]:
        found = server.about("definition", name)
        places = [(place["uri"], place["range"]["start"]["line"]) for place in found]
        files = [Path(uri.removeprefix("file://")) for uri, _ in places]
        line = files[-1].read_text().splitlines()[places[-1][1]]
        code = re.match(rf"(def |class )?{name.rpartition('.')[2]}\b", line)
        if not code or any(file.suffix != ".py" for file in files):
            astray[name] = places
    assert astray == {}


def test_no_formula_is_a_directive():
    """pyright shows nothing of ``.. math::``."""
    files = (ROOT / "contrastloss").rglob("*.py")
    assert [file for file in files if ".. math::" in file.read_text()] == []
