"""Every name in docs/seeds.md exists and computes a result."""

from inspect import isclass
from pathlib import Path

import pytest
import torch
from torch import nn

import contrastloss
from contrastloss import presets
from contrastloss.losses import Loss
from contrastloss.testing import example

ROOT = Path(__file__).parent.parent


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
    assert {row for row, names in ROWS.items() if not names} == set(presets.NAMELESS)


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


#: options of the published systems that differ from the defaults
CHOSEN = {
    "clan": {"alpha": 0.5, "margin": 0.5},
    "scgc": {"loss_weight": 2.0, "self_score": False},
    "core_tuning": {"temperature": 0.07, "loss_weight": 10.0, "divisor": "positives"},
    "point_cmae": {"stop_gradient": False, "pairs": "aligned"},
    "cm_unet": {"temperature": 0.07, "loss_weight": 0.14},
    "moe_embed": {"temperature": 0.05},
    "halp": {"temperature": 0.07, "weight": 2.0, "form": "alignment"},
    "hallucinator": {"form": "info_nce"},
    "simlap": {"mean_over": "pairs"},
    "beclr": {"t": 0.25, "across": True, "weight": 0.2, "loss_weight": 0.5},
    "hicmae": {"temperature": 0.07, "loss_weight": 0.0025},
    "astrom3": {"directions": "sum", "temperature": 0.01},
    "macil_sd": {"loss_weight": 1.5, "temperature": 0.1},
    "dclw": {"weight": 0.5, "temperature": 0.1},
    "selfie": {"normalize": False, "temperature": 1.0},
    "mcl": {"against": "own"},
    "g_simclr": {"against": "other", "temperature": 0.1},
    "debcse": {"in_batch_negatives": False, "temperature": 0.05},
    "projection_head": {"normalize": False},
}


@pytest.mark.parametrize("name", CHOSEN)
def test_options_are_those_of_the_systems(name):
    loss = getattr(presets, name)()
    found = {option: getattr(loss, option) for option in CHOSEN[name]}
    assert found == pytest.approx(CHOSEN[name])


def test_a_scale_follows_its_temperature():
    assert presets.cm_unet(temperature=0.2).loss_weight == 0.4
    assert presets.gaugllm()["barlow_twins"].lambda_ is None


def test_presets_are_documented_and_overridable():
    named = {name for seed in presets.SEEDS.values() for name in seed.names}
    functions = {f"presets.{name}" for name in presets.__all__ if name.islower()}
    assert {name for name in named if name.startswith("presets.")} == functions
    assert presets.clmr().temperature == 0.5
    assert presets.clmr(temperature=0.2).temperature == 0.2
    assert presets.w2v_bert()["diversity"].loss_weight == 0.1
    for name in presets.__all__:
        value = getattr(presets, name)
        if name.islower():
            assert len(value.__doc__) > 20, name
