"""README and CONTRIBUTING say what is true: their code runs, their commands and links exist."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from contrastloss import demo
from contrastloss.losses import LOSSES

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", "docs/architecture.md"]
#: its python needs several processes: tests/distributed/test_examples.py
ALL_PAGES = [*PAGES, "docs/distributed.md"]
README = (ROOT / "README.md").read_text()


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text):
    """Lines of the shell blocks and inline code, without comments."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`([^`\n]+)`", prose)
    return [words for line in lines if (words := shlex.split(line, comments=True, posix=True))]


@pytest.mark.parametrize("page", PAGES)
def test_its_python_runs(page):
    code = "\n".join(blocks((ROOT / page).read_text(), "python"))
    # in a process of its own: a loss that is declared there is registered for good
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
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
