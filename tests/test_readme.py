"""README and CONTRIBUTING say what is true: their code runs, their commands and links exist."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pages import blocks
from torch.nn.functional import cross_entropy, normalize

import contrastloss
from contrastloss import demo
from contrastloss.losses import LOSSES

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/choosing.md", "docs/usage.md",
    "docs/migration.md",
]  # fmt: skip
#: pages that declare no loss under a name, so that one process runs them all
SHORT_PAGES = [
    "docs/index.md", "docs/how.md", "docs/precision.md",
    *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/guides/*.md")),
]  # fmt: skip
#: the Python of distributed.md and gradcache.md needs several processes:
#: tests/distributed/test_examples.py
ALL_PAGES = [
    *PAGES, *SHORT_PAGES, "docs/distributed.md", "docs/gradcache.md", "docs/glossary.md",
    "docs/support.md", "docs/performance.md",
]  # fmt: skip
README = (ROOT / "README.md").read_text()
MIGRATION = (ROOT / "docs/migration.md").read_text()


def commands(text):
    """Lines of the shell blocks and inline code, without comments."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`([^`\n]+)`", prose)
    return [words for line in lines if (words := shlex.split(line, comments=True, posix=True))]


@pytest.mark.parametrize("pages", [*([page] for page in PAGES), SHORT_PAGES], ids=lambda p: p[0])
def test_its_python_runs(pages):
    # in a process of its own: a loss that is declared there is registered for good
    words = [sys.executable, ROOT / "tests/pages.py", *(ROOT / page for page in pages)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ALL_PAGES)
def test_its_make_targets_exist(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = {words[1] for words in commands((ROOT / page).read_text()) if words[0] == "make"}
    assert named <= set(targets)


@pytest.mark.parametrize("page", ALL_PAGES)
def test_its_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#]+)", (ROOT / page).read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_readme_names_the_two_commands_first():
    assert [words[:2] for words in commands(README)[:2]] == [["make", "demo"], ["make", "test"]]


def test_readme_starts_with_gradients_of_leaves():
    first = blocks(README, "python")[0]
    found: dict = {}
    exec(first, found)
    assert len(first.splitlines()) <= 6
    for leaf in (found["x"], found["y"]):
        assert leaf.is_leaf
        assert leaf.grad.isfinite().all()
        assert leaf.grad.any()


def in_batch(scores):
    return cross_entropy(scores, torch.arange(len(scores)))


def both_ways(scores):
    return (in_batch(scores) + in_batch(scores.T)) / 2


def cosines(x, y):
    return normalize(x) @ normalize(y).T


def two_views(x, y, temperature):
    z, n = normalize(torch.cat([x, y])), len(x)
    scores = (z @ z.T / temperature).masked_fill(torch.eye(2 * n, dtype=torch.bool), -torch.inf)
    return cross_entropy(scores, torch.arange(2 * n).roll(n))


def metric_learning(name, *inputs):
    from pytorch_metric_learning import losses

    loss = getattr(losses, name)()
    return (losses.SelfSupervisedLoss(loss) if name == "NTXentLoss" else loss)(*inputs)


#: what the left column of the README's table computes of rows x and y, of labels of x, and of a
#: scale; contrastloss/bench/peers.py compares the other libraries' own classes
TODAY = {
    "torch: `cross_entropy(x @ y.T, arange(N))`": lambda x, y, labels, scale: in_batch(x @ y.T),
    "torch: the mean of that over `x @ y.T` and `y @ x.T`": (
        lambda x, y, labels, scale: both_ways(x @ y.T)
    ),
    "open_clip: `ClipLoss()(x, y, scale)`": lambda x, y, labels, scale: both_ways(scale * x @ y.T),
    "pytorch-metric-learning: `SelfSupervisedLoss(NTXentLoss())(x, y)`": (
        lambda x, y, labels, scale: metric_learning("NTXentLoss", x, y)
    ),
    "pytorch-metric-learning: `SupConLoss()(z, labels)`": (
        lambda x, y, labels, scale: metric_learning("SupConLoss", x, labels)
    ),
    "lightly: `NTXentLoss()(x, y)`": lambda x, y, labels, scale: two_views(x, y, 0.5),
    "sentence-transformers: `MultipleNegativesRankingLoss`, pairs": (
        lambda x, y, labels, scale: in_batch(20 * cosines(x, y))
    ),
    "info-nce-pytorch: `InfoNCE()(x, y)`": (
        lambda x, y, labels, scale: in_batch(cosines(x, y) / 0.1)
    ),
}


def values(function, *leaves):
    value = function(*leaves)
    grads = torch.autograd.grad(value, leaves, allow_unused=True)
    return value.detach(), [grad for grad in grads if grad is not None]


def test_readme_says_what_to_write_instead():
    found = re.search(r"^\| what you use today .*?(?=\n\n)", README, re.MULTILINE | re.DOTALL)
    rows = found[0].splitlines()[2:]
    instead = dict(row.strip("| ").split(" | ") for row in rows)
    (spread,) = instead.keys() - TODAY.keys()  # tests/distributed
    assert "group=" in instead[spread]
    made = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 8, 5, generator=made, dtype=torch.float64).unbind()
    x, y = (rows.requires_grad_() for rows in (x, y))
    labels, scale = torch.arange(8) // 3, torch.tensor(7.0, dtype=torch.float64)
    for today, dense in TODAY.items():
        code = compile(instead[today].strip("`"), today, "eval")

        def ours(x, y, code=code):
            names = {"x": x, "y": y, "z": x, "labels": labels, "scale": scale}
            return eval(code, vars(contrastloss) | names)

        want = values(lambda x, y, dense=dense: dense(x, y, labels, scale), x, y)
        torch.testing.assert_close(
            values(ours, x, y), want, msg=lambda text, t=today: f"{t}: {text}"
        )


def test_hard_negatives_in_addition_to_the_batch():
    """docs/migration.md: as sentence-transformers' MultipleNegativesRankingLoss takes them."""
    code = "InfoNCELoss(1 / 20)(x, y, n)"
    assert f"`{code}`" in MIGRATION
    x, y, n = torch.randn(3, 8, 5, dtype=torch.float64).unbind()
    names = {"x": x, "y": y, "n": n}
    want = in_batch(20 * cosines(x, torch.cat([y, n])))
    torch.testing.assert_close(eval(code, vars(contrastloss) | names), want)


def test_glossary_is_in_alphabetical_order():
    terms = re.findall(r"^\*\*(.+?)\*\*", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert len(terms) > 40
    assert terms == sorted(terms, key=str.lower)


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_readme_demo_commands_are_understood():
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    start = ["python", "-m", "contrastloss", "demo"]
    found = [words[4:] for words in commands(README) if words[:4] == start]
    assert found
    for words in found:
        parser.parse_args(words)  # exits on an unknown option or value


def test_readme_tables_name_losses():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", README, re.MULTILINE)
    assert len(rows) > 15
    for cls, name in rows:
        assert LOSSES[name].__name__ == cls


def test_every_loss_has_its_page():
    page = (ROOT / "docs/losses.md").read_text()
    assert re.findall(r"^### (\w+)", page, re.MULTILINE) == [
        cls.__name__ for _, cls in sorted(LOSSES.items())
    ]


def test_readme_has_one_place_for_the_measurements():
    markers = re.findall(r"<!-- performance:(\w+) -->", README)
    assert markers == ["begin", "end"]


def test_picture_is_small():
    assert (ROOT / "docs/images/digits.png").stat().st_size < 200_000


def test_migration_names_the_versions_that_are_tested():
    (beside,) = re.findall(r"tested beside (.*?)\. None", MIGRATION, re.DOTALL)
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    named = re.findall(r"([\w-]+) (\d[\d.]+\d)", beside)
    assert len(named) == 6
    assert {f"{name}=={version}" for name, version in named} <= {*pinned}


def test_migration_names_every_adapter_and_what_exists():
    """Each adapter has a row, and native losses can be made as their column has them."""
    folder = ROOT / "contrastloss/compat"
    for path in sorted([*folder.glob("*.py"), *folder.glob("*/__init__.py")]):
        stem = path.parent.name if path.stem == "__init__" else path.stem
        named = re.search(r"^__all__ = (\[.*?\])", path.read_text(), re.MULTILINE | re.DOTALL)
        own = stem in ("hand_over", "labels", "ranks")
        public = eval(named[1]) if named and not own else []
        rows = [name for name in public if f"`compat.{stem}.{name}`" not in MIGRATION]
        assert not rows, f"{stem}: {rows}"
    names = {"T": 0.5, "m": 0.2, "t": 0.1, "s": 10.0, **vars(contrastloss)}
    made = 0
    for code in re.findall(r"`([A-Z]\w+Loss\([^`]*?\))[(`]", MIGRATION):
        if code.split("(")[0] in vars(contrastloss):
            made += isinstance(eval(code, names), torch.nn.Module)
    assert made > 30
