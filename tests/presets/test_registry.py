"""What a preset is; every name in docs/seeds.md exists and computes a result."""

import copy
import inspect
import pickle
import pydoc
import re
from inspect import isclass
from pathlib import Path

import pytest
import torch
from torch import nn

import contrastloss
from contrastloss import presets
from contrastloss.losses import CLIPLoss, InfoNCELoss, Loss, NTXentLoss
from contrastloss.presets import PRESETS, Preset
from contrastloss.presets.registry import row
from contrastloss.testing import example

ROOT = Path(__file__).parents[2]


def documented():
    """The rows of docs/seeds.md: (number, names)."""
    for line in (ROOT / "docs/seeds.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split(" | ")]
        if cells[0].removeprefix("| ").isdigit():
            names = [name.strip("` ") for name in cells[2].split(",") if name]
            yield int(cells[0].removeprefix("| ")), names


ROWS = dict(documented())


def named(name):
    value = contrastloss
    for part in name.split("."):
        value = getattr(value, part)
    return value


def z(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def probabilities(*shape):
    return z(*shape).softmax(-1)


#: for names that are neither losses nor presets: a call, with a check of its result
CALLS = {
    "LogitScale": lambda make: make(init=0.07)() > 14.28,
    "decoding.contrastive_search": lambda f: f(
        probabilities(2, 3), z(2, 3, 5), z(2, 4, 5), alpha=0.0
    ).equal(probabilities(2, 3)),
    "decoding.isotropy": lambda f: f(torch.ones(1, 4, 5)).abs().max() < 1e-6,
    "memory.EmbeddingQueue": lambda make: make(4, 3).embeddings.shape == (4, 3),
    "memory.MomentumEncoder": lambda make: make(nn.Linear(3, 2))(z(5, 3)).shape == (5, 2),
    "mixing.hallucinated_queries": lambda f: f(z(6, 4), z(6, 4)).shape == (6, 8),
    "mixing.hard_mixtures": lambda f: f(z(6, 4), torch.arange(6) // 2)[0].shape[-1] == 4,
    "mixing.label_mixtures": lambda f: f(z(6, 4), torch.arange(6.0))[0].shape[-1] == 4,
    "mixing.latent_positives": lambda f: f(z(6, 4), z(3, 4), 7)[0].shape == (6, 7, 4),
    "ops.gather_scores": lambda f: f(z(3, 4), z(5, 4), torch.zeros(3, 2).long()).shape == (3, 2),
    "ops.pair_topk": lambda f: f(torch.eye(3), torch.eye(3), 1).indices[:, 0].tolist() == [0, 1, 2],
    "sorting.rank_mass": lambda f: f(z(2, 5), torch.ones(5)).sub(1).abs().max() < 1e-5,
}


def floating(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def losses_of(value):
    """The losses of a name: of a class, of a preset of one loss, or of a preset of several."""
    made = value()
    return list(made.values()) if isinstance(made, nn.ModuleDict) else [made]


def test_all_77_systems_are_there():
    assert list(ROWS) == list(range(1, 78))
    assert {n for n, names in ROWS.items() if not names} == {
        n for n, other in presets.OTHERS.items() if not other.uses
    }


@pytest.mark.parametrize("name", sorted({name for names in ROWS.values() for name in names}))
def test_every_name_computes(name):
    value = named(name)
    if name in CALLS:
        assert CALLS[name](value)
        return
    assert name.startswith("presets.") or (isclass(value) and issubclass(value, Loss)), name
    for loss in losses_of(value):
        if isinstance(loss, contrastloss.LogitScale):
            continue
        inputs = example(type(loss), 12, 6, torch.Generator().manual_seed(0))
        leaves = [v.float().requires_grad_() if floating(v) else v for v in inputs]
        own = not getattr(loss, "in_batch_negatives", True)
        total = loss(*leaves, **({"negatives": z(12, 5, 6)} if own else {}))
        total.backward()
        assert total.isfinite()
        assert total != 0
        assert any(v.grad is not None and v.grad.any() for v in leaves if floating(v))


def test_the_table_has_every_system_once():
    rows = presets.table()
    assert [r.number for r in rows] == list(range(1, 78))
    assert rows[0] == (1, "CLAN", "CLANLoss", "jackwilkie/CLAN", True)
    assert rows[4] == (5, "BBM (Generate to Ground)", "", "", False)
    assert rows[76].loss == "MEOWLoss, ProtoNCELoss, AdaMEOWLoss"
    assert {r.number for r in rows if not r.loss} == {*presets.OTHERS}
    verified = {p.number for p in PRESETS.values()} - {
        p.number for p in PRESETS.values() if not p.verified
    }
    assert {r.number for r in rows if r.verified} == verified


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_is(name):
    preset = PRESETS[name]
    assert getattr(presets, name) is preset
    assert name in presets.__all__
    assert 1 <= preset.number <= 77
    assert f"verified={preset.verified}" in repr(preset)
    # nothing is both a guess and verified, and what is verified has a source
    assert preset.verified == (not preset.guess)
    assert preset.source or preset.guess
    said = " ".join(preset.__doc__.split())
    assert said.endswith("Verified." if preset.verified else f"Not verified: {preset.guess}.")
    assert preset.source in said
    assert max(map(len, preset.__doc__.splitlines())) <= 100
    assert len(preset.__doc__.splitlines()[0]) > 20
    assert pydoc.plain(pydoc.render_doc(preset)).startswith("Python Library Documentation: Preset")
    assert preset.__doc__.splitlines()[0] in pydoc.render_doc(preset)
    made = losses_of(preset)
    for loss in made:
        if isinstance(loss, Loss):
            assert ("verified=False" in repr(loss)) != preset.verified
    assert inspect.signature(preset).bind() is not None


PROOFS = "\n".join(
    path.read_text() for path in sorted(Path(__file__).parent.glob("test_*.py"))
    if path.name != Path(__file__).name
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.verified])
def test_what_is_verified_has_a_test(name):
    """A formula of released code beside it, in another file of this folder."""
    assert re.search(rf"\bpresets\.{name}\b", PROOFS)


def test_presets_are_the_public_names():
    assert {n for n in presets.__all__ if n.islower()} == {*PRESETS, "table"}
    documented = {n.removeprefix("presets.") for names in ROWS.values() for n in names}
    assert {*PRESETS} <= documented


def test_options_override_those_of_the_system():
    assert presets.clmr().temperature == 0.5
    assert presets.clmr(temperature=0.2).temperature == 0.2
    assert presets.clmr(0.3).temperature == 0.3
    assert inspect.signature(presets.clmr).parameters["temperature"].default == 0.5
    assert inspect.signature(presets.clmr).return_annotation == "NTXentLoss"
    with pytest.raises(TypeError, match="nothing"):
        presets.clmr(nothing=1)
    assert presets.cm_unet(temperature=0.2).loss_weight == 0.4


@pytest.fixture
def example_row():
    known = {**PRESETS}
    yield row(
        "example",
        7,
        "Example",
        "Example: a system with two data sets.",
        NTXentLoss,
        {"temperature": 0.5, "loss_weight": 2.0},
        datasets={"small": {}, "large": {"temperature": 0.25}},
        paper={"loss_weight": 1.0},
        guess="all of it",
    )
    PRESETS.clear()
    PRESETS.update(known)


def options(loss):
    return loss.temperature, loss.loss_weight


def test_data_sets_and_the_paper_choose_options(example_row):
    assert options(example_row()) == (0.5, 2.0)
    assert options(example_row(dataset="large")) == (0.25, 2.0)
    assert options(example_row(dataset="large", released=False)) == (0.25, 1.0)
    assert options(example_row(dataset="large", temperature=0.1)) == (0.1, 2.0)
    assert options(example_row(0.1, dataset="large")) == (0.1, 2.0)
    with pytest.raises(ValueError, match="dataset: got 'huge', expected one of small, large"):
        example_row(dataset="huge")
    with pytest.raises(TypeError, match="dataset"):
        presets.clmr(dataset="small")
    given = inspect.signature(example_row).parameters
    assert (given["dataset"].default, given["released"].default) == ("small", True)
    assert "dataset='large'``: ``temperature=0.25``" in example_row.__doc__
    assert "``released=False``, as in the paper: ``loss_weight=1.0``." in example_row.__doc__


def test_a_loss_says_that_it_is_not_verified_wherever_it_goes(example_row):
    loss = example_row()
    assert repr(loss) == "NTXentLoss(loss_weight=2.0, temperature=0.5, verified=False)"
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(other) == repr(loss)
    assert loss.state_dict() == {}
    z1, z2 = z(5, 4), z(5, 4).flip(0)
    assert loss(z1, z2).equal(NTXentLoss(0.5, loss_weight=2.0)(z1, z2))
    assert "verified" not in repr(presets.clmr()) + repr(CLIPLoss())
    several = presets.wearable()
    for other in (several, copy.deepcopy(several), pickle.loads(pickle.dumps(several))):
        assert repr(other).count("verified=False") == 2
    assert several.state_dict() == {}


def test_losses_of_the_paper_were_not_compared():
    assert "verified" not in repr(presets.villa()) + repr(presets.scgc())
    assert "verified=False" in repr(presets.scgc(released=False))
    assert repr(presets.villa(released=False)).count("verified=False") == 2


def test_a_preset_is_one_object():
    for preset in (presets.clan, presets.cm_unet):
        assert isinstance(preset, Preset)
        assert pickle.loads(pickle.dumps(preset)) is preset
        assert copy.deepcopy(preset) is preset
        with pytest.raises(AttributeError):
            preset.number = 5
    assert repr(presets.clan) == ("<preset clan: CLANLoss(alpha=0.5, margin=0.5), verified=True>")
    assert repr(presets.cm_unet).startswith("<preset cm_unet(temperature=0.07, **options), ")
    assert isinstance(presets.moe_embed(), InfoNCELoss)
