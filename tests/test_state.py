"""State stays correct under compilers, activation checkpoints and different ways of loading."""

import copy

import pytest
import torch
from properties import gradients
from torch import nn
from torch.utils.checkpoint import checkpoint

from contrastloss import (
    CLIPLoss,
    CrossBatchMemory,
    DiffSortLoss,
    DINOLoss,
    EmbeddingQueue,
    InfoNCELoss,
    LogitScale,
    MoCHiLoss,
    MoCoLoss,
    MomentumEncoder,
    NTXentLoss,
    PairContrastiveLoss,
    SigLIPLoss,
    SupConLoss,
)
from contrastloss.losses import LOSSES
from contrastloss.ops.copies import copies

# ---- torch.compile -------------------------------------------------------------------------------

N, D, SLOTS = 6, 4, 13


class Queued(nn.Module):
    """MoCo, with the update of the momentum encoder and the enqueue in the same graph."""

    def __init__(self, loss, before=False):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(D, D), nn.LayerNorm(D), nn.Sigmoid())
        self.key_encoder = MomentumEncoder(self.encoder, 0.5)
        self.loss, self.queue, self.before = loss, EmbeddingQueue(SLOTS, D, ids=True), before

    def forward(self, x, ids):
        key = self.key_encoder(x.detach() + 0.1)
        if self.before:
            self.queue.enqueue(key, ids=ids)
        value = self.loss(self.encoder(x), key, self.queue, ids=ids)
        value = value + (x.sum(1) * 0.9 ** self.queue.ages[:N].to(x.dtype)).mean()
        if not self.before:
            self.queue.enqueue(key, ids=ids)
        self.key_encoder.update(self.encoder)
        return value


class Centred(nn.Module):
    """DINO, with updates of its centre and of the teacher's prototypes in the same graph."""

    def __init__(self):
        super().__init__()
        self.loss, self.prototypes = DINOLoss(), nn.Parameter(torch.randn(5, D))
        self.register_buffer("centre", torch.zeros(5))
        self.register_buffer("teacher", torch.randn(5, D))
        self.temperature = LogitScale(0.5, max_scale=1.5)

    def forward(self, x, ids):
        teacher, scale = x.detach() + 0.1, self.temperature()
        value = self.loss(
            x * scale, teacher, self.prototypes, center=self.centre, teacher_prototypes=self.teacher
        )
        with torch.no_grad():
            self.centre.lerp_(DINOLoss.center(teacher, self.teacher), 0.5)
            self.teacher.lerp_(self.prototypes, 0.5)
        return value


class Seen(MoCHiLoss):
    """MoCHi with fixed numbers instead of random ones, the same when compiled."""

    def draw(self, count, device):
        total = 3 * self.mixed + 2 * self.mixed_with_query
        return torch.linspace(0.01, 0.99, count * total, device=device).view(count, total)


class Labelled(nn.Module):
    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def forward(self, x, ids):
        given = {} if self.memory.queue.ids is None else {"ids": ids}
        return self.memory(x, ids % 3, **given)


class Paired(Labelled):
    def forward(self, x, ids):
        return self.memory(
            x, x.roll(1, 1), **({} if self.memory.queue.ids is None else {"ids": ids})
        )


PARTS = {
    "moco": lambda: Queued(MoCoLoss()),
    "moco-before": lambda: Queued(MoCoLoss(), before=True),
    "mochi": lambda: Queued(Seen(hardest=3, mixed=4, mixed_with_query=2)),
    "supcon": lambda: Labelled(CrossBatchMemory(SupConLoss(), SLOTS, D)),
    "supcon-ids": lambda: Labelled(CrossBatchMemory(SupConLoss(), SLOTS, D, ids=True)),
    "info_nce": lambda: Paired(CrossBatchMemory(InfoNCELoss(), SLOTS, D)),
    "info_nce-ids": lambda: Paired(CrossBatchMemory(InfoNCELoss(), SLOTS, D, ids=True)),
    "dino": Centred,
}
#: every kind of state, with and without ids; and all combinations
FEW_OR_ALL = [
    pytest.param(["moco-before", "mochi", "supcon", "info_nce-ids", "dino"], id="few"),
    pytest.param([*PARTS], id="all", marks=pytest.mark.extra),
]


class Together(nn.ModuleDict):
    """All parts in one graph, since each alone takes half a minute to compile; every part gets its
    own rows."""

    def forward(self, x, ids):
        return torch.stack([part(rows, ids) for part, rows in zip(self.values(), x, strict=True)])


@pytest.mark.timeout(900)  # g++ takes a minute
@pytest.mark.parametrize("names", FEW_OR_ALL)
def test_state_under_the_default_compiler(names, device):
    module = Together({name: PARTS[name]() for name in names}).to(device)
    twin = copy.deepcopy(module)
    torch.compiler.reset()
    compiled = torch.compile(module, fullgraph=True)
    for step in range(3):
        x = torch.randn(len(names), N, D, device=device, requires_grad=True)
        ids = (torch.arange(N, device=device) + 2 * step) % 7
        found = []
        for run, of in ((compiled, module), (twin, twin)):
            value = run(x, ids)
            learned = {n: p for n, p in of.named_parameters() if p.requires_grad}
            grads = gradients(value.sum(), x, *learned.values())
            found.append([dict(zip(names, v, strict=True)) for v in (value, grads[0])])
            found[-1] += [dict(zip(learned, grads[1:], strict=True)), of.state_dict()]
        torch.testing.assert_close(*found)


def test_copies_are_an_operator(device):
    values = [torch.randn(3, 2, device=device), torch.arange(3, device=device)]
    torch.library.opcheck(torch.ops.contrastloss.copies, (values,))
    found = copies(values)
    values[0].zero_()
    assert found[0].all()
    assert torch.equal(found[1], values[1])


# ---- torch.utils.checkpoint ----------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_is_computed_anew_finds_no_other_state(reentrant, device):
    """A recomputed region that uses a queue or a momentum encoder raises: otherwise its numbers and
    the stored rows would differ from those of the forward pass."""
    x, labels = torch.randn(N, D, device=device, requires_grad=True), torch.arange(N) % 2
    memory = CrossBatchMemory(SupConLoss(), SLOTS, D, device=device)
    queue = EmbeddingQueue(SLOTS, D, device=device)
    linear = nn.Linear(D, D, device=device)
    encoder = MomentumEncoder(linear, 0.5)

    def stepping(x):
        loss = (linear(x) * encoder(x)).exp().sum()
        encoder.update(linear)
        return loss

    def enqueueing(x):
        queue.enqueue(x)
        return x.exp().sum()

    for run, message in (
        (lambda x: memory(x, labels.to(device)), "state: got a read"),
        (lambda x: MoCoLoss()(x, x + 1, queue), "state: got a read"),
        (enqueueing, "queue: got an enqueue"),
        (stepping, "momentum encoder: got a call"),
        (lambda x: (encoder.update(linear), x.exp().sum())[1], "momentum encoder: got an update"),
    ):
        loss = checkpoint(run, x, use_reentrant=reentrant)
        queue.enqueue(x)
        with pytest.raises(RuntimeError, match=f"^{message} in a backward pass"):
            loss.backward()
    assert memory.queue.written == N, "a batch is stored twice"
    assert queue.step == 6, "expected five enqueues in the loop and one in a region"


# ---- state that is set only in __init__ ----------------------------------------------------------


class Model(nn.Module):
    """A model with every kind of state in the package."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(D, 3)
        self.temperature = LogitScale(0.3)
        self.clip = CLIPLoss(temperature=torch.tensor(0.3, device="cpu"))
        self.siglip = SigLIPLoss(bias=nn.Parameter(torch.tensor(-5.0, device="cpu")))
        self.pairs = PairContrastiveLoss(variant="bce", bias=torch.tensor(0.5, device="cpu"))
        self.order = DiffSortLoss(steepness=torch.tensor(3.0, device="cpu"))
        self.memory = CrossBatchMemory(SupConLoss(), 8, 3, ids=True)
        self.keys = MomentumEncoder(self.encoder)


def test_reset_parameters_makes_what_init_made():
    with torch.device("meta"):
        model = Model()
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.fill_(7)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    model.keys.reset(model.encoder)
    found, want = model.state_dict(), Model().state_dict()
    assert found.keys() == want.keys()
    for name, value in want.items():
        if not name.startswith(("encoder", "keys")):  # random
            assert torch.equal(found[name], value), name
    assert torch.equal(model.keys.module.weight, model.encoder.weight)
    assert model.memory.queue.count == 0


def test_the_value_of_an_option_on_meta_is_unknown():
    loss = CLIPLoss(temperature=torch.tensor(0.3, device="meta")).to_empty(device="cpu")
    with pytest.raises(RuntimeError, match=r"^temperature: got a tensor on meta, expected one"):
        loss.reset_parameters()
    loss.load_state_dict({"temperature": torch.tensor(0.3)})
    assert loss.temperature == torch.tensor(0.3)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_can_be_built_on_meta(name):
    with torch.device("meta"):
        loss = LOSSES[name]()
    assert not loss.state_dict()
    loss.to_empty(device="cpu").reset_parameters()


def test_options_that_are_tensors_are_saved():
    one, other = (NTXentLoss(temperature=torch.tensor(tau)) for tau in (0.3, 0.7))
    assert list(one.state_dict()) == ["temperature"]
    other.load_state_dict(one.state_dict())
    assert other.temperature == one.temperature
    with pytest.raises(RuntimeError, match=r"Missing key.*temperature"):
        other.load_state_dict({})
    one.temperature.fill_(0.5)
    one.reset_parameters()
    assert one.temperature == torch.tensor(0.3)


def test_from_pretrained(tmp_path):
    """from_pretrained, which builds a model on meta and loads the persistent state, restores it."""
    import transformers  # takes seconds

    class Pretrained(transformers.PreTrainedModel):
        config_class = transformers.PretrainedConfig

        def __init__(self, config):
            super().__init__(config)
            self.model = Model()
            self.option = NTXentLoss(temperature=torch.tensor(0.3))
            self.post_init()

        def _init_weights(self, module):
            pass

    saved = Pretrained(transformers.PretrainedConfig())
    saved.model.memory.queue.enqueue(torch.randn(5, 3), torch.arange(5), torch.arange(5))
    saved.option.temperature.fill_(0.25)
    saved.save_pretrained(tmp_path)
    loaded = Pretrained.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.state_dict(), saved.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(dict(loaded.named_buffers()), dict(saved.named_buffers()))
    assert loaded.model.memory.queue.count == 5
