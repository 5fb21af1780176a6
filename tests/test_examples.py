"""The examples, with fewer steps. tests/distributed/test_examples.py tests ddp_digits.py."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(folder, name, *arguments):
    """The output of the example."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def figures(printed):
    """The numbers in the last line, by name: ``what: name 0.9 (0.8), other name 0.7``."""
    line = printed.splitlines()[-1].rpartition(": ")[2]
    found = re.findall(r"([^,]+?) (\d\.\d+)(?: \(\d\.\d+\))?(?:, |$)", line)
    return {name.strip(): float(value) for name, value in found}


def test_images(tmp_path):
    losses = ["nt_xent", "supcon"]
    picture = tmp_path / "picture.png"
    printed = run(tmp_path, "images", "--steps", 20, "--losses", *losses, "--picture", picture)
    rows = [re.split(r"  +", line) for line in printed.splitlines()[1:-1]]
    one_label = {name: float(values[0]) for name, *values in rows}
    assert list(one_label) == ["raw pixels", "untrained encoder", *losses]
    assert one_label["raw pixels"] == 64.5
    for loss, gain in zip(losses, (2, 6), strict=True):
        assert one_label[loss] > one_label["untrained encoder"] + gain
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.extra
def test_anomalies(tmp_path):
    found = figures(run(tmp_path, "anomalies", "--splits", 1, "--steps", 80, "--seed", 3))
    assert list(found) == ["CLAN", "untrained", "PCA reconstruction", "isolation forest"]
    assert found["untrained"] < 0.85
    assert found["CLAN"] > 0.94
    assert found["PCA reconstruction"] > 0.9


def test_text(tmp_path):
    found = figures(run(tmp_path, "text", "--steps", 15, "--batch", 128))
    assert list(found) == ["untrained", "contrastive", "TF-IDF"]
    assert found["contrastive"] > found["untrained"] + 0.03


@pytest.mark.extra
def test_graphs(tmp_path):
    found = figures(run(tmp_path, "graphs", "--steps", 100))
    assert list(found) == ["SCGC", "MEOW", "untrained", "k-means", "spectral"]
    assert found["untrained"] < 0.9
    assert min(found["SCGC"], found["MEOW"]) > 0.93


@pytest.mark.extra
def test_multimodal(tmp_path):
    found = figures(run(tmp_path, "multimodal", "--steps", 40))
    assert list(found) == ["CLIP", "SigLIP", "three modalities", "CCA", "chance"]
    assert found["chance"] < 0.002
    for name in ("CLIP", "SigLIP", "three modalities"):
        assert found[name] > 0.025


def test_gradient_caching(tmp_path):
    printed = run(tmp_path, "gradient_caching", "--batch", 160, "--chunk", 8)
    rows = [re.split(r"  +", line) for line in printed.splitlines()[1:]]
    assert [name for name, *_ in rows] == ["gradient caching", "accumulation", "one batch"]
    sizes, losses, errors = ([float(row[k]) for row in rows] for k in (2, 3, 4))
    assert losses[0] == losses[2] > losses[1] + 1
    assert errors[0] < 1e-5 < errors[1]
    assert sizes[0] < sizes[2] / 2
