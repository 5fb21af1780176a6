"""What plots draw, and what a Monitor tells each tool by its own methods."""

import ast
import inspect
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from contrastloss import LogitScale, Monitor, NTXentLoss, metrics, plots

NAMES = ["alignment", "uniformity", "positive_similarity", "negative_similarity"]


def views(n=33, d=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, d, generator=g, dtype=torch.float64)


# ---- values ----------------------------------------------------------------------------------


def expected(x, y):
    x, y = normalize(x), normalize(y)
    s, eye = x @ y.T, torch.eye(len(x), dtype=torch.bool)
    spread = [(-2 * torch.cdist(z, z).square()).exp()[~eye].mean().log() for z in (x, y)]
    return {
        "alignment": (x - y).square().sum(1).mean(),
        "uniformity": sum(spread) / 2,
        "positive_similarity": s.diag().mean(),
        "negative_similarity": s[~eye].mean(),
    }


def close(found, wanted):
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert found[name] == pytest.approx(torch.as_tensor(value).item(), abs=1e-6), name


def test_values_of_a_step():
    x, y = views()
    x.requires_grad_()
    scale, loss = LogitScale(init=0.2), NTXentLoss(return_stats=True)
    value, stats = loss(x, y, logit_scale=scale())
    value.backward()
    monitor = Monitor()
    found = monitor.log(
        3, x, y, stats=stats, temperature=1 / scale(), parameters=[x, *scale.parameters()]
    )
    norm = torch.cat([x.grad.flatten(), scale.log_scale.grad.flatten()]).norm()
    wanted = {**expected(x, y), "temperature": 0.2, "gradient_norm": norm, **stats}
    close(found, wanted)
    assert monitor.history == {name: [(3, value)] for name, value in found.items()}
    assert all(type(value) is float for value in found.values())


def test_labels_say_which_pairs_are_positive():
    z, labels = views()[0], torch.arange(33) % 4
    found = Monitor().log(0, z, labels=labels)
    own = torch.eye(33, dtype=torch.bool)
    same = (labels[:, None] == labels) & ~own
    s, far = normalize(z) @ normalize(z).T, torch.cdist(normalize(z), normalize(z)).square()
    wanted = (far[same].mean(), far[~own].mul(-2).exp().mean().log(), s[same].mean())
    close(found, dict(zip(NAMES, (*wanted, s[~same & ~own].mean()), strict=True)))


def test_only_some_steps_are_logged():
    x, y = views()
    seen = []
    monitor = Monitor(lambda values, step: seen.append(step), every=5)
    found = [monitor.log(step, x, y, parameters=iter([])) for step in range(11)]
    assert [bool(values) for values in found] == [step % 5 == 0 for step in range(11)]
    assert seen == [0, 5, 10]
    assert [step for step, _ in monitor.history["uniformity"]] == seen
    assert found[0]["gradient_norm"] == 0
    assert monitor.log(5) == {}
    assert seen == [0, 5, 10]


# ---- tools -----------------------------------------------------------------------------------


class SummaryWriter:
    """TensorBoard's method with its parameters."""

    def __init__(self):
        self.seen = []

    def add_scalar(
        self,
        tag,
        scalar_value,
        global_step=None,
        walltime=None,
        new_style=False,
        double_precision=False,
    ):
        assert type(scalar_value) is float
        self.seen.append((tag, scalar_value, global_step))


class Run:
    """The method of a run of W&B."""

    def __init__(self):
        self.seen = []

    def log(self, data, step=None, commit=None):
        self.seen += [(name, value, step) for name, value in data.items()]


class Logger:
    """A method of Lightning's loggers."""

    def __init__(self):
        self.seen = []

    def log_metrics(self, metrics, step=None):
        self.seen += [(name, value, step) for name, value in metrics.items()]

    def log(self):
        raise AssertionError("of another tool")


class Fabric:
    """Lightning's, which has a ``log`` with other parameters, too."""

    def __init__(self):
        self.seen = []

    def log(self, name, value, step=None):
        raise AssertionError("of one value")

    def log_dict(self, metrics, step=None):
        self.seen += [(name, value, step) for name, value in metrics.items()]


class Function:
    def __init__(self):
        self.seen = []

    def __call__(self, values, step):
        self.seen += [(name, value, step) for name, value in values.items()]


@pytest.mark.parametrize("tool", [SummaryWriter, Run, Logger, Fabric, Function])
def test_each_tool_by_its_own_method(tool):
    to = tool()
    found = Monitor(to, prefix="train/").log(7, *views(), temperature=0.1)
    assert to.seen == [(f"train/{name}", value, 7) for name, value in found.items()]
    assert [name for name, _, _ in to.seen] == [f"train/{n}" for n in (*NAMES, "temperature")]


def test_tensorboard_has_these_parameters():
    """Read from its source, which needs no package to be installed."""
    path = Path(torch.__file__).parent / "utils/tensorboard/writer.py"
    nodes = ast.walk(ast.parse(path.read_text()))
    (found,) = (n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == "add_scalar")
    names = [argument.arg for argument in found.args.args]
    assert names == list(inspect.signature(SummaryWriter.add_scalar).parameters)


def test_a_logger_of_lightning(tmp_path):
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    logger = loggers.CSVLogger(tmp_path)
    found = Monitor(logger).log(2, *views())
    logger.save()
    (path,) = tmp_path.rglob("metrics.csv")
    names, values = (line.split(",") for line in path.read_text().splitlines())
    row = dict(zip(names, values, strict=True))
    assert int(row.pop("step")) == 2
    assert {n: float(v) for n, v in row.items()} == {
        f"contrastive/{n}": v for n, v in found.items()
    }


def test_fabric_of_lightning(tmp_path):
    lightning = pytest.importorskip("lightning")
    loggers = pytest.importorskip("lightning.fabric.loggers")
    logger = loggers.CSVLogger(tmp_path)
    fabric = lightning.Fabric(accelerator="cpu", devices=1, loggers=[logger])
    Monitor(fabric).log(4, *views())
    logger.save()
    (path,) = tmp_path.rglob("metrics.csv")
    assert "contrastive/uniformity" in path.read_text().splitlines()[0]


def test_tensorboard_itself(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        found = Monitor(writer).log(2, *views())
    events = EventAccumulator(str(tmp_path)).Reload()
    for name, value in found.items():
        (event,) = events.Scalars(f"contrastive/{name}")
        assert (event.step, event.value) == (2, pytest.approx(value))


def test_wandb_itself(tmp_path):
    wandb = pytest.importorskip("wandb")
    names = list(inspect.signature(wandb.Run.log).parameters)
    assert names == list(inspect.signature(Run.log).parameters)
    with wandb.init(mode="offline", dir=tmp_path) as run:
        monitor = Monitor(run)
        found = monitor.log(2, *views())
        assert run.step == 2
        monitor.log(3, temperature=0.1)  # with a step, a run keeps its values until the next one
        for name, value in found.items():
            assert run.summary[f"contrastive/{name}"] == value


@pytest.mark.parametrize(
    "to",
    [3, "wandb", object(), [], torch.ones(2), nn.Linear(1, 1), logging.getLogger("x")],
    ids=lambda to: type(to).__name__,
)
def test_what_is_no_tool(to):
    with pytest.raises(TypeError, match=rf"^to: got {type(to).__name__}, expected a SummaryWriter"):
        Monitor(to)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": 3}, "y: got neither y nor labels, expected one of them"),
        ({"x": 3, "y": 3, "labels": 3}, "y: got y and labels, expected one of them"),
        ({"x": 3, "y": 4}, r"y: got shape \(4, 2\), expected x's \(3, 2\)"),
        ({"y": 3}, "x: got None with y or labels, expected a tensor"),
        ({"stats": 1}, "stats: got int, expected a dict of numbers"),
        ({"stats": {"a": "b"}}, "a: got str, expected a number or a tensor with one"),
        ({"stats": {"a": torch.ones(2)}}, "a: got Tensor, expected a number or a tensor with one"),
        ({"parameters": nn.Linear(1, 1)}, "parameters: got Linear, expected tensors"),
        ({"step": 1.5}, "step: got float, expected an integer"),
    ],
)
def test_errors_name_the_argument(given, message):
    values = {
        name: torch.ones(value, 2) if name in ("x", "y")
        else torch.arange(value) if name == "labels" else value
        for name, value in given.items()
    }  # fmt: skip
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        Monitor().log(**{"step": 0, **values})


# ---- plots -----------------------------------------------------------------------------------


@pytest.fixture
def ax():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot.subplots()[1]
    pyplot.close("all")


def test_the_histogram(ax):
    x, y = views()
    assert plots.similarities(metrics.similarity_histogram(x, y, 8), ax) is ax
    s, eye = normalize(x) @ normalize(y).T, torch.eye(33, dtype=torch.bool)
    for patch, part in zip(ax.patches, (s[eye], s[~eye]), strict=True):
        density, edges = np.histogram(part, np.linspace(-1, 1, 9), density=True)
        np.testing.assert_allclose(patch.get_data().values, density)
        np.testing.assert_allclose(patch.get_data().edges, edges)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["positives", "negatives"]


def test_curves_and_the_path_of_a_training(ax):
    history = {
        "temperature": [(0, 0.1), (10, 0.07)],
        "gradient_norm": [(0, 2.0), (5, 1.0), (10, 3.0)],
        "alignment": [(0, 1.5), (10, 0.5)],
        "uniformity": [(0, -1.0), (10, -2.0)],
    }
    assert plots.curves(history, ["gradient_norm", "temperature"], ax) is ax
    assert [line.get_label() for line in ax.lines] == ["gradient_norm", "temperature"]
    assert ax.lines[0].get_xydata().tolist() == [[0, 2], [5, 1], [10, 3]]
    assert ax.lines[1].get_xydata().tolist() == [[0, 0.1], [10, 0.07]]
    assert ax.get_xlabel() == "step"
    other = plots.alignment_uniformity(history)
    assert other is not ax
    (points,) = other.collections
    assert points.get_offsets().tolist() == [[-1, 1.5], [-2, 0.5]]
    assert points.get_array().tolist() == [0, 10]
    assert (other.get_xlabel(), other.get_ylabel()) == ("uniformity", "alignment")


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_a_grid_of_neighbors(shape, ax):
    queries, corpus = torch.rand(2, *shape), torch.rand(5, *shape).numpy()
    index = torch.tensor([[4, 0, 2], [1, -1, -1]])
    plots.neighbors(queries, corpus, index, ax, labels=[7, 8], corpus_labels=[7, 8, 7, 8, 9])
    shown = [queries[0], corpus[4], corpus[0], corpus[2], queries[1], corpus[1]]
    for image, value in zip(ax.images, shown, strict=True):
        np.testing.assert_array_equal(image.get_array(), value)
    left, right, bottom, top = zip(*(image.get_extent() for image in ax.images), strict=True)
    assert left == (0, 1.25, 2.25, 3.25, 0, 1.25)
    assert top == (0, 0, 0, 0, 1, 1)
    assert np.subtract(right, left) == pytest.approx(0.9)
    assert np.subtract(bottom, top) == pytest.approx(0.9)
    frames = [(patch.get_xy(), patch.get_linestyle()) for patch in ax.patches]
    assert frames == [((1.25, 0), "--"), ((2.25, 0), "-"), ((3.25, 0), "-"), ((1.25, 1), "-")]
    x0, x1 = ax.get_xlim()
    y1, y0 = ax.get_ylim()
    assert x0 < 0 < max(right) < x1
    assert y0 < 0 < 2 < y1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.similarities([1]), "histogram: got list, expected a Histogram"),
        (lambda: plots.curves({}, ["a"]), "history: got nothing, expected values of a"),
        (lambda: plots.curves({"b": []}, "b"), "names: got str, expected a list of strings"),
        (lambda: plots.curves(3, ["a"]), "history: got int, expected Monitor.history"),
        (
            lambda: plots.alignment_uniformity({"alignment": [], "uniformity": [(0, 1.0)]}),
            "history: got other steps of alignment, expected those of uniformity",
        ),
        (
            lambda: plots.neighbors(torch.ones(2, 3), torch.ones(2, 3, 3), torch.ones(2, 1).long()),
            r"queries: got shape \(2, 3\), expected images \(N, H, W\)",
        ),
        (
            lambda: plots.neighbors(*torch.ones(2, 2, 3, 3), torch.ones(1, 1).long()),
            r"index: got shape \(1, 1\), expected \(2, k\)",
        ),
    ],
)
def test_errors_of_plots(call, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        call()


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'contrastloss\[plots\]'"):
        plots.curves({}, [])
