"""A step of gradient caching is that of the same chunks run with graph, whatever the encoder."""

import contextlib
import gc
import random
import warnings
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from contrastloss import CLIPLoss, LogitScale, NTXentLoss, SupConLoss
from contrastloss.gradcache import GradCache, step, wrappers

SIZES = [(1, 1), (1, 4), (2, 3), (7, 3), (9, 1), (17, 5), (32, 8), (33, 64), (130, 13)]


def encoder(seed=1, dropout=0.3, dtype=torch.float64, out=4):
    torch.manual_seed(seed)
    parts = [
        nn.Linear(6, 8),
        nn.Dropout(dropout),
        nn.GELU(),
        nn.Linear(8, out),
        nn.Dropout(dropout),
    ]
    return nn.Sequential(*parts).to(dtype)


def with_state():
    """Of chunks of several rows: what it computes depends on state that every call changes."""
    torch.manual_seed(1)
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4))
    parts = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), spectral]
    return nn.Sequential(*parts).double()


def rows(n, d=6, dtype=torch.float64, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_graph(encode, size, value):
    """The same chunks, all of them with graph."""
    return torch.cat([encode(part) for part in value.split(size)])


def taken(loss, models, seed=5):
    """What a step leaves: its loss, gradients, buffers, and the next random number."""
    torch.manual_seed(seed)
    value = loss()
    grads = [p.grad for model in models for p in model.parameters()]
    state = [b for model in models for b in model.buffers()]
    return value.detach(), grads, state, torch.rand(3)


def same(found, want, tolerance=1e-10):
    torch.testing.assert_close(found[0], want[0], rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(found[1], want[1], strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm().clamp_min(1e-12)
        assert theirs.norm() > 0
    for ours, theirs in zip(found[2], want[2], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    assert torch.equal(found[3], want[3])


def clip_step(models, n, size, cached, dtype=torch.float64):
    x, y = rows(n, dtype=dtype), rows(n, dtype=dtype, seed=1)
    images, texts, scale = models

    def whole():
        values = [with_graph(images, size, x), with_graph(texts, size, y)]
        loss = CLIPLoss()(*values, logit_scale=scale())
        loss.backward()
        return loss

    def in_chunks():
        with GradCache(size) as cache:
            loss = CLIPLoss()(cache(images, x), cache(texts, y), logit_scale=scale())
            loss.backward()
        return loss

    return taken(in_chunks if cached else whole, models)


def clip_models(dtype=torch.float64, dropout=0.3):
    return encoder(1, dropout, dtype), encoder(2, dropout, dtype), LogitScale().to(dtype)


@pytest.mark.parametrize(("n", "size"), SIZES[2:], ids=str)
def test_a_step_is_that_of_chunks_with_graph(n, size):
    found, want = (clip_step(clip_models(), n, size, cached) for cached in (True, False))
    same(found, want)


@pytest.mark.parametrize(("n", "size"), SIZES[2:], ids=str)
def test_without_dropout_it_is_that_of_one_batch(n, size):
    cached = clip_step(clip_models(dropout=0.0), n, size, True)
    same(cached, clip_step(clip_models(dropout=0.0), n, n, False))


def test_in_fp32():
    models = (clip_models(torch.float32) for _ in range(2))
    found, want = (
        clip_step(m, 64, 9, cached, torch.float32)
        for m, cached in zip(models, (True, False), strict=True)
    )
    same(found, want, 1e-5)


@pytest.mark.parametrize(("n", "size"), [(12, 4), (7, 5), (6, 6)], ids=str)
def test_one_encoder_for_both_sides_and_its_state(n, size):
    """Two calls of one encoder, whose buffers both runs change."""
    found = []
    for cached in (True, False):
        model, x, y = with_state(), rows(n), rows(n, seed=1)

        def whole(model=model, x=x, y=y):
            loss = NTXentLoss()(with_graph(model, size, x), with_graph(model, size, y))
            loss.backward()
            return loss

        def in_chunks(model=model, x=x, y=y):
            cache = GradCache(size)
            loss = NTXentLoss()(cache(model, x), cache(model, y))
            loss.backward()
            return loss

        found.append(taken(in_chunks if cached else whole, [model]))
    same(*found)


def test_labels_and_several_backward_passes_per_cache():
    """Losses of any signature; a cache without block is used for a step after the other."""
    labels = torch.arange(10) % 3
    models = encoder(), encoder()
    cache = GradCache(3)
    for seed in (0, 1):
        x = rows(10, seed=seed)
        torch.manual_seed(seed)
        SupConLoss()(cache(models[0], x), labels).backward()
        torch.manual_seed(seed)
        SupConLoss()(with_graph(models[1], 3, x), labels).backward()
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


class Drawing(nn.Module):
    """Draws from the random numbers of Python and numpy, too."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 4, dtype=torch.float64))

    def forward(self, x):
        return x @ self.weight * (random.random() + np.random.rand() + torch.rand(len(x), 1))


def test_random_numbers_of_python_and_numpy():
    found = []
    for cached in (True, False):
        random.seed(1)
        np.random.seed(1)
        model, x = Drawing(), rows(9)
        encode = partial(GradCache(2), model) if cached else partial(with_graph, model, 2)

        def loss(encode=encode, x=x):
            value = NTXentLoss()(encode(x), encode(x))
            value.backward()
            return value

        found.append((*taken(loss, [model])[:3], torch.tensor([random.random(), np.random.rand()])))
    same(*found)


# ---- autocast, scaled losses ---------------------------------------------------------------------


@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
def test_autocast(inside):
    """The second run has the autocast of the first, and no weight that was cast without graph."""
    found = []
    for cached in (True, False):
        model = encoder(dtype=torch.float32)
        x, y = rows(16, dtype=torch.float32), rows(16, dtype=torch.float32, seed=1)

        def loss(model=model, x=x, y=y, cached=cached):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                cache = GradCache(4)
                a = cache(model, x) if cached else with_graph(model, 4, x)
                b = model(y)  # the same weights with graph, not cached
                assert a.dtype == torch.bfloat16
                value = CLIPLoss()(a, b)
                if inside:
                    value.backward()
            if not inside:
                value.backward()
            return value

        found.append(taken(loss, [model]))
    same(*found, tolerance=1e-2)


def test_a_scaled_loss():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    model, plain = encoder(), encoder()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.5) for m in (model, plain)]
    x, y = rows(9), rows(9, seed=1)
    torch.manual_seed(0)
    value = step(
        NTXentLoss(), (model, x), (model, y), chunk_size=4,
        backward=lambda loss: scaler.scale(loss).backward(),
    )  # fmt: skip
    scaler.step(optimizers[0])
    scaler.update()
    torch.manual_seed(0)
    want = NTXentLoss()(with_graph(plain, 4, x), with_graph(plain, 4, y))
    want.backward()
    optimizers[1].step()
    torch.testing.assert_close(value, want.detach())
    assert not value.requires_grad
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-6, atol=1e-8)


# ---- inputs and outputs --------------------------------------------------------------------------


class Structured(nn.Module):
    """Takes and returns structures."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 4, dtype=torch.float64))
        self.scale = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, batch, words=None, *, pair=None, shift=0.0):
        self.seen = words, type(batch)
        z = batch["x"] @ self.weight + shift
        if pair is not None:
            z = z + pair[0].sum(1, keepdim=True) * pair[1]
        return {"z": z, "rest": (self.scale * 2, z.argmax(1), "name", None)}


def test_structures():
    models, x, pair = (Structured(), Structured()), rows(7), (rows(7, 2), torch.tensor(2.0))
    words = [f"word {k}" for k in range(7)]
    cache = GradCache(3)
    found = cache(models[0], {"x": x, "kind": "text"}, words, pair=pair, shift=0.5)
    want = models[1]({"x": x}, words, pair=pair, shift=0.5)
    assert models[0].seen == (["word 6"], dict)
    assert found["rest"][2:] == ("name", None)
    assert torch.equal(found["rest"][1], want["rest"][1])
    for out in (found, want):
        CLIPLoss()(out["z"], x[:, :4], logit_scale=out["rest"][0]).backward()
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert theirs.grad.norm() > 0
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_a_batch_and_a_model_of_transformers():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=16,
    )  # fmt: skip
    torch.manual_seed(0)
    models = [transformers.BertModel(config).double().train() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    g = torch.Generator().manual_seed(0)
    mask = (torch.arange(7) < torch.randint(2, 8, (9, 1), generator=g)).long()
    words = torch.randint(30, (9, 7), generator=g)
    batch = transformers.BatchEncoding({"input_ids": words, "attention_mask": mask})

    def pooled(model, batch):
        assert isinstance(batch, transformers.BatchEncoding)
        return model(**batch).pooler_output

    y, values = rows(9, 8), []
    for k, model in enumerate(models):
        torch.manual_seed(3)
        if k == 0:
            x = GradCache(4)(model, **batch).pooler_output
            torch.manual_seed(3)
            assert torch.equal(GradCache(4)(partial(pooled, model), batch), x)
        else:
            parts = [{key: v[i : i + 4] for key, v in batch.items()} for i in (0, 4, 8)]
            x = torch.cat([model(**part).pooler_output for part in parts])
        values.append(CLIPLoss()(x, y))
        values[-1].backward()
    torch.testing.assert_close(*values)
    for (name, ours), theirs in zip(
        models[0].named_parameters(), models[1].parameters(), strict=True
    ):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_inputs_that_are_leaves_get_gradients():
    x = rows(7).requires_grad_()
    frozen = encoder(dropout=0.0).requires_grad_(False)
    NTXentLoss()(GradCache(2)(frozen, x), rows(7, 4)).backward()
    found, x.grad = x.grad, None
    NTXentLoss()(frozen(x), rows(7, 4)).backward()
    torch.testing.assert_close(found, x.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("how", ["checkpoint", "compile", "method"])
def test_encoders_of_other_kinds(how):
    model, plain, x, y = encoder(), encoder(), rows(8), rows(8, 4, seed=1)
    encode = {
        "checkpoint": lambda v: checkpoint(model, v, use_reentrant=False),
        "compile": torch.compile(model, backend="aot_eager"),
        "method": model.forward,
    }[how]
    if how == "compile":
        model.eval(), plain.eval()
    torch.manual_seed(0)
    value = step(CLIPLoss(), (encode, x), (lambda v: v, y), chunk_size=[3, 8])
    torch.manual_seed(0)
    want = CLIPLoss()(with_graph(plain, 3, x), y)
    want.backward()
    torch.testing.assert_close(value, want.detach())
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-12)
    torch._dynamo.reset() if how == "compile" else None


def test_steps_by_keywords_and_positions():
    model, x, shift = Structured(), rows(5), torch.zeros(5, 1, dtype=torch.float64)
    encode = lambda batch, shift: model(batch, shift=shift)["z"]  # noqa: E731
    loss = lambda a, b: CLIPLoss()(a, b.roll(1, 1))  # noqa: E731
    call = {"batch": {"x": x}, "shift": shift}
    value = step(loss, (encode, call), (encode, ({"x": x}, shift)), chunk_size=2)
    z = encode(**call)
    torch.testing.assert_close(value, loss(z, z).detach())


# ---- what runs, and what is held -----------------------------------------------------------------


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = encoder(dropout=0.0)
        self.runs, self.alive = [], []

    def forward(self, x):
        self.alive = [ref for ref in self.alive if ref() is not None]
        self.runs.append((len(x), torch.is_grad_enabled(), len(self.alive)))
        hidden = self.linear[0](x)
        self.alive.append(weakref.ref(hidden))
        return self.linear[3](hidden.tanh())


def test_one_chunk_has_a_graph():
    model = Counting()
    with GradCache(4) as cache:
        NTXentLoss()(cache(model, rows(10)), cache(model, rows(10, seed=1))).backward()
    once = [(4, False, 0), (4, False, 0), (2, False, 0)]
    assert model.runs == [*once, *once, *([(4, True, 0), (4, True, 0), (2, True, 0)] * 2)]


def test_what_needs_no_second_run():
    x = rows(4)
    frozen, unused = Counting().requires_grad_(False), Counting()
    with GradCache(2) as cache:
        z = cache(encoder(), x)
        cache(unused, x)
        NTXentLoss()(z, cache(frozen, x)).backward()
    assert len(frozen.runs) == len(unused.runs) == 2
    with torch.no_grad():
        found = GradCache(3)(model := Counting(), x)
    assert len(model.runs) == 2
    assert not found.requires_grad
    assert torch.equal(found, with_graph(model, 3, x))


def test_no_rows():
    """An encoder of a group runs on every rank, whatever its part of the batch."""
    model = Counting()
    NTXentLoss()(GradCache(3)(model, rows(0)), rows(0, 4)).backward()
    assert [run[:2] for run in model.runs] == [(0, False), (0, True)]


def test_a_step_without_backward_pass_is_freed():
    """At once, not by the collector of cycles."""
    gc.disable()
    try:
        x = rows(8)
        z = GradCache(4)(model := encoder(), x)
        held = weakref.ref(x)
        del x
        assert held() is not None
        del z
        assert held() is None
        with torch.enable_grad(), contextlib.suppress(RuntimeError), GradCache(4) as cache:
            y = rows(8)
            held = weakref.ref(y)
            cache(model, y)
        del y
        assert held() is None
    finally:
        gc.enable()


# ---- warnings and errors -------------------------------------------------------------------------


def test_batch_norm_is_said_once():
    wrappers._warn.cache_clear()
    with pytest.warns(UserWarning, match="got BatchNorm1d in train mode") as said:
        GradCache(2)(with_state(), rows(4))
    assert [entry.filename for entry in said] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradCache(2)(with_state(), rows(4))  # it was said above
        wrappers._warn.cache_clear()
        GradCache(4)(with_state(), rows(4))  # one chunk is the batch
        GradCache(2)(with_state().eval(), rows(4))


def backward_of(encode, *args):
    with GradCache(2) as cache:
        NTXentLoss()(cache(encode, *args), rows(5, 4)).backward()


def test_a_chunk_that_changes():
    model = encoder(dropout=0.0)
    for change, error, text in (
        (lambda z: z[1:], ValueError, r"got 1 rows for a chunk of 2, expected a row for each"),
        (lambda z: z.repeat(1, len(z)), ValueError, r"shape \(1, 4\), expected \(rows, 8\)"),
        (
            lambda z: z if len(z) > 1 else z.float(),
            TypeError,
            r"float32 on cpu, expected torch.float64 on cpu",
        ),
        (lambda z: None, TypeError, "encoder: got NoneType, expected embeddings"),
        (lambda z: z if len(z) > 1 else (z, z), ValueError, "got an output of 2 parts, expected"),
    ):
        with pytest.raises(error, match=text):
            backward_of(lambda x, change=change: change(model(x)), rows(5))


def test_a_second_run_that_changes():
    model = encoder(dropout=0.0)
    later = lambda change: lambda x: change(model(x)) if torch.is_grad_enabled() else model(x)  # noqa: E731
    with pytest.raises(TypeError, match=r"got a chunk of torch.float32 on cpu, expected torch.fl"):
        backward_of(later(lambda z: z.float()), rows(5))
    with pytest.raises(ValueError, match="got 3 rows for a chunk of 2"):
        backward_of(later(lambda z: torch.cat([z, z[:1]])), rows(5))


def test_a_loss_that_is_not_called():
    text = r"got no gradient of the embeddings, expected loss.backward\(\)"
    with pytest.raises(RuntimeError, match=text), GradCache(2) as cache:
        cache(encoder(), rows(4))
    with pytest.raises(RuntimeError, match=text):
        step(lambda z: rows(3).requires_grad_().sum(), (encoder(), rows(4)), chunk_size=2)
    with pytest.raises(ZeroDivisionError):  # and no other error
        step(lambda z: z / (1 // 0), (encoder(), rows(4)), chunk_size=2)
    with GradCache(2):
        pass


def test_a_second_backward_pass():
    loss = NTXentLoss()(GradCache(2)(encoder(), rows(4)), rows(4, 4))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="got a second backward pass"):
        loss.backward()


def test_arguments():
    cache, model, x = GradCache(2), encoder(), rows(4)
    with pytest.raises(ValueError, match="chunk_size: got 0, expected an integer of at least 1"):
        GradCache(0)
    with pytest.raises(TypeError, match="chunk_size: got str"):
        cache(model, x, chunk_size="2")
    with pytest.raises(ValueError, match="chunk_size: got 1 numbers, expected one of 2"):
        step(CLIPLoss(), (model, x), (model, x), chunk_size=[2])
    with pytest.raises(TypeError, match="modules: got function, expected a list of modules"):
        GradCache(2, modules=[lambda x: x])
    with pytest.raises(TypeError, match=r"calls\[1\]: got Tensor, expected a pair of an encoder"):
        step(CLIPLoss(), (model, x), x, chunk_size=2)
    with pytest.raises(TypeError, match="encoder: got Tensor, expected a callable"):
        cache(x, model)
    with pytest.raises(TypeError, match="inputs: got str, expected a tensor or a list with a row"):
        cache(model, "text")
    with pytest.raises(TypeError, match="inputs: got nothing"):
        cache(model)
    with pytest.raises(ValueError, match=r"args\[1\]\['y'\]: got 3 rows, expected args\[0\]'s 4"):
        cache(model, x, {"y": x[:3]})
    with pytest.raises(ValueError, match=r"words: got 5 rows, expected args\[0\]'s 4"):
        cache(model, x, words=["a"] * 5)
    with pytest.raises(ValueError, match=r"args\[0\]: got a tensor with a graph, expected a leaf"):
        cache(model, model[0](x)[:, :6])
    with pytest.raises(ValueError, match="chunk_size: got -1"):
        step(CLIPLoss(), (model, x), chunk_size=-1)
