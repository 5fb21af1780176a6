"""Faults in a group of three ranks, where rank 1 is the one that differs. A module of its own,
since the processes of the ranks import it."""

import contextlib
import os
import threading
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from layouts import column_major
from ranks import start

from contrastloss import (
    CircleLoss,
    CLIPLoss,
    CrossBatchMemory,
    DCLLoss,
    EmbeddingQueue,
    GISTLoss,
    HardNegativeLoss,
    InfoNCELoss,
    MoCoLoss,
    NTXentLoss,
    SampledContrastiveLoss,
    SelfConLoss,
    SigLIPLoss,
    SupConLoss,
    TripletLoss,
)
from contrastloss.channel import LSE, MAX
from contrastloss.distributed import pair_stats

#: rows of each rank, of different sizes
ROWS = (3, 2, 4)


def embeddings(group, seed=0, dim=4, dtype=torch.float32):
    """This rank's rows, with a gradient."""
    generator = torch.Generator().manual_seed(10 * seed + dist.get_rank(group))
    x = torch.randn(ROWS[dist.get_rank(group)], dim, generator=generator).to(dtype)
    return x.requires_grad_()


def pair(group, **options):
    return embeddings(group, 1, **options), embeddings(group, 2, **options)


# ---- ranks that disagree: all of them raise at once, and the group remains usable ----------------

#: name: (function that the ranks call, and the start of the ValueError that each of them raises)
DISAGREEMENTS = {}


def disagreement(name, message):
    def add(function):
        assert name not in DISAGREEMENTS
        DISAGREEMENTS[name] = function, message
        return function

    return add


def differs(name, got, value):
    return f"{name}: got {got} on ranks 0, 2; {value} on rank 1; expected the same on every rank"


def option(cls, name, usual, other, *, inputs=pair, shown=None, **others):
    """A loss with an option that differs on rank 1."""
    got, value = shown or (repr(usual), repr(other))

    @disagreement(f"{cls.__name__} {name}: {got}, {value}", differs(name, got, value))
    def act(group, odd):
        return cls(group=group, **{name: other if odd else usual}, **others)(*inputs(group))


def labelled(group):
    return embeddings(group), torch.arange(ROWS[dist.get_rank(group)]) % 2


def keyed(group):
    return *pair(group), torch.ones(5, 4)


def candidates(group):
    x, y = pair(group)
    return x, y, torch.arange(len(x))[:, None].repeat(1, 2)


def given(group):
    x, y = pair(group)
    return x, y, torch.ones(len(x), 3, 4)


def scalar(requires_grad):
    return torch.tensor(0.2, requires_grad=requires_grad)


for strategy, other in (("gather", "ring"), ("ring", "gather")):
    option(CLIPLoss, "strategy", strategy, other)
option(CLIPLoss, "temperature", 0.07, 0.08)
option(CLIPLoss, "reduction", "mean", "sum")
option(CLIPLoss, "reduction", "mean", "none")
option(CLIPLoss, "loss_weight", 1, 2)
option(CLIPLoss, "normalize", True, False)
option(CLIPLoss, "return_stats", False, True)
option(CLIPLoss, "validate", False, True)
option(CLIPLoss, "backend", None, "reference")
option(CLIPLoss, "temperature", 0.2, scalar(True), shown=("0.2", "0-D torch.float32 with gradient"))
option(
    CLIPLoss,
    "temperature",
    scalar(False),
    scalar(True),
    shown=("0-D torch.float32 without gradient", "0-D torch.float32 with gradient"),
)
option(SigLIPLoss, "bias", -10, -9)
option(TripletLoss, "margin", 0.1, 0.2, inputs=labelled, mining="hard")
option(CircleLoss, "m", 0.25, 0.5, inputs=labelled)
option(HardNegativeLoss, "tau_plus", 0.1, 0.2)
option(DCLLoss, "weight", 0.5, 0.6)
option(InfoNCELoss, "hardness", 1.5, 2.5)
option(SupConLoss, "variant", "out", "in", inputs=labelled)
# losses in which no pair spans two ranks
option(MoCoLoss, "temperature", 0.07, 0.08, inputs=keyed)
option(MoCoLoss, "reduction", "mean", "none", inputs=keyed)
option(SampledContrastiveLoss, "temperature", 0.1, 0.2, inputs=candidates)
option(InfoNCELoss, "temperature", 0.1, 0.3, inputs=given)


def inputs(name, message, cls, **options):
    """A loss with inputs from ``function(group, odd)``, which returns positional and named ones."""

    def add(function):
        @disagreement(name, message)
        def act(group, odd):
            args, kwargs = function(group, odd)
            return cls(group=group, **options)(*args, **kwargs)

    return add


@inputs("D, gather", differs("D", 4, 5), CLIPLoss, strategy="gather")
def _(group, odd):
    return pair(group, dim=4 + odd), {}


@inputs("D, ring", differs("D", 4, 5), CLIPLoss, strategy="ring")
def _(group, odd):
    return pair(group, dim=4 + odd), {}


@inputs(
    "dtype",
    differs("x", "2-D torch.float32 with gradient", "2-D torch.float64 with gradient"),
    CLIPLoss,
)
def _(group, odd):
    return pair(group, dtype=torch.float64 if odd else torch.float32), {}


@inputs(
    "what requires gradients, rows",
    differs("x", "2-D torch.float32 with gradient", "2-D torch.float32 without gradient"),
    CLIPLoss,
    strategy="ring",
)
def _(group, odd):
    x, y = pair(group)
    return (x.detach() if odd else x, y), {}


@inputs(
    "what requires gradients, columns",
    differs("y", "2-D torch.float32 with gradient", "2-D torch.float32 without gradient"),
    CLIPLoss,
    strategy="gather",
)
def _(group, odd):
    x, y = pair(group)
    return (x, y.detach() if odd else y), {}


@disagreement(
    "no_grad",
    differs("x", "2-D torch.float32 with gradient", "2-D torch.float32 without gradient"),
)
def _(group, odd):
    with torch.no_grad() if odd else contextlib.nullcontext():
        return CLIPLoss(group=group)(*pair(group))


@disagreement("autocast", differs("autocast", "none", "torch.bfloat16"))
def _(group, odd):
    with torch.autocast("cpu", torch.bfloat16, enabled=odd):
        return MoCoLoss(group=group)(*keyed(group))


@inputs("logit_scale given", differs("logit_scale", "None", 5), CLIPLoss)
def _(group, odd):
    return pair(group), {"logit_scale": 5.0 if odd else None}


@inputs("logit_scale", differs("logit_scale", 4, 5), CLIPLoss)
def _(group, odd):
    return pair(group), {"logit_scale": 5.0 if odd else 4.0}


@inputs("logit_bias", differs("logit_bias", 0.25, 0.5), CLIPLoss)
def _(group, odd):
    return pair(group), {"logit_bias": 0.5 if odd else 0.25}


@inputs(
    "a learnable logit_scale",
    differs("logit_scale", "0-D torch.float32 with gradient", 5),
    CLIPLoss,
)
def _(group, odd):
    return pair(group), {"logit_scale": 5.0 if odd else torch.tensor(5.0, requires_grad=True)}


@inputs(
    "dtype of labels",
    differs("labels", "1-D torch.int64 without gradient", "1-D torch.int32 without gradient"),
    SupConLoss,
)
def _(group, odd):
    z, labels = labelled(group)
    return (z, labels.int() if odd else labels), {}


@inputs(
    "columns of labels",
    differs("labels", *(f"2-D torch.int64 without gradient, ({t},) each" for t in (2, 3))),
    SelfConLoss,
)
def _(group, odd):
    z, labels = labelled(group)
    return (torch.stack([z, z], 1), torch.stack([labels] * (3 if odd else 2), 1)), {}


@inputs(
    "weights given",
    differs("row_weight", "1-D torch.float32 without gradient", "None"),
    InfoNCELoss,
)
def _(group, odd):
    x, y = pair(group)
    return (x, y), {} if odd else {"row_weight": torch.ones(len(x))}


@inputs(
    "log_q given",
    differs("log_q", "None", "1-D torch.float32 without gradient"),
    InfoNCELoss,
)
def _(group, odd):
    x, y = pair(group)
    return (x, y), {"log_q": torch.zeros(len(x))} if odd else {}


@inputs(
    "guide given",
    differs(
        "guide", "None", "(2-D torch.float32 without gradient, 2-D torch.float32 without gradient)"
    ),
    GISTLoss,
)
def _(group, odd):
    x, y = pair(group)
    return (x, y), {"guide": (x.detach(), y.detach())} if odd else {}


@inputs(
    "negatives given",
    differs("negatives", "None", "2-D torch.float32 without gradient"),
    InfoNCELoss,
)
def _(group, odd):
    return keyed(group) if odd else pair(group), {}


@inputs(
    "memory given",
    differs("memory", "EmbeddingQueue(4, 4, dtype=torch.float32), training", "None"),
    InfoNCELoss,
)
def _(group, odd):
    return pair(group), {} if odd else {"memory": EmbeddingQueue(4, 4)}


@inputs(
    "queues of two sizes",
    differs(
        "queue",
        "EmbeddingQueue(4, 4, dtype=torch.float32), training",
        "EmbeddingQueue(5, 4, dtype=torch.float32), training",
    ),
    MoCoLoss,
)
def _(group, odd):
    return (*pair(group), EmbeddingQueue(4 + odd, 4)), {}


@disagreement(
    "a memory in evaluation",
    differs(
        "memory",
        "EmbeddingQueue(4, 4, labels=True, dtype=torch.float32), training",
        "EmbeddingQueue(4, 4, labels=True, dtype=torch.float32), evaluating",
    ),
)
def _(group, odd):
    memory = CrossBatchMemory(SupConLoss(group=group), 4, 4).train(not odd)
    return memory(*labelled(group))


@disagreement("another loss", differs("call", "CLIPLoss", "NTXentLoss"))
def _(group, odd):
    return (NTXentLoss if odd else CLIPLoss)(0.1, group=group)(*pair(group))


@disagreement("another loss of the same statistics", differs("call", "InfoNCELoss", "Mine"))
def _(group, odd):
    class Mine(InfoNCELoss):
        def combine(self, negative, positive, scores):
            return 2 * super().combine(negative, positive, scores)

    return (Mine if odd else InfoNCELoss)(group=group)(*pair(group))


@disagreement("another order of losses", differs("call", "CLIPLoss", "NTXentLoss"))
def _(group, odd):
    for cls in (NTXentLoss, CLIPLoss) if odd else (CLIPLoss, NTXentLoss):
        cls(group=group)(*pair(group))


@disagreement("a loss and an enqueue", differs("call", "CLIPLoss", "enqueue"))
def _(group, odd):
    if odd:
        return EmbeddingQueue(4, 4).enqueue(embeddings(group), group=group)
    return CLIPLoss(group=group)(*pair(group))


@disagreement(
    "an enqueue into another queue",
    differs(
        "queue",
        "EmbeddingQueue(4, 4, dtype=torch.float32), training",
        "EmbeddingQueue(4, 4, dtype=torch.float64), training",
    ),
)
def _(group, odd):
    queue = EmbeddingQueue(4, 4, dtype=torch.float64 if odd else torch.float32)
    queue.enqueue(embeddings(group), group=group)


@disagreement("enqueued dtypes", differs("keys", "torch.float32", "torch.float64"))
def _(group, odd):
    keys = embeddings(group, dtype=torch.float64 if odd else torch.float32)
    EmbeddingQueue(4, 4).enqueue(keys, group=group)


def operator(name, message):
    """The operator itself, with arguments from ``function(group, odd)``."""

    def add(function):
        @disagreement(f"pair_stats: {name}", message)
        def act(group, odd):
            options = {"channels": (LSE(),), **function(group, odd)}
            return pair_stats(*pair(group), group=group, **options)

    return add


@operator("scale", differs("scale", 2, 3))
def _(group, odd):
    return {"scale": 3.0 if odd else 2.0}


@operator("cosine", differs("cosine", False, True))
def _(group, odd):
    return {"cosine": odd}


@operator("col_bias given", differs("col_bias", "None", "1-D torch.float32 without gradient"))
def _(group, odd):
    return {"col_bias": torch.zeros(ROWS[1])} if odd else {}


@operator("channels", "channels: got [[")
def _(group, odd):
    return {"channels": (LSE(2.0) if odd else LSE(),)}


# ---- a rank with wrong arguments raises its own error; the others raise one that names the rank --


#: name: (function that the ranks call, and the error that rank 1 raises)
REFUSALS = {}


def refusal(name, message):
    def add(function):
        assert name not in REFUSALS
        REFUSALS[name] = function, message
        return function

    return add


@refusal("a shape", "ValueError: y: got shape (1, 4), expected x's (2, 4)")
def _(group, odd):
    x, y = pair(group)
    return CLIPLoss(group=group)(x, y[1:] if odd else y)


@refusal("a missing input", "TypeError: CLIPLoss.forward() missing 1 required positional")
def _(group, odd):
    x, y = pair(group)
    return CLIPLoss(group=group)(*((x,) if odd else (x, y)))


@refusal("an unknown input", "TypeError: CLIPLoss.forward() got an unexpected keyword argument")
def _(group, odd):
    return CLIPLoss(group=group)(*pair(group), **({"scale": 3.0} if odd else {}))


@refusal("no tensor", "TypeError: x: got list, expected a tensor")
def _(group, odd):
    x, y = pair(group)
    return CLIPLoss(group=group, strategy="ring")(x.tolist() if odd else x, y)


@refusal("NaN, validated", "ValueError: x: got NaN or infinity in 2 of 2 rows")
def _(group, odd):
    x, y = pair(group)
    return CLIPLoss(group=group, validate=True)(x * torch.nan if odd else x, y)


@refusal("labels", "ValueError: labels: got shape (3,), expected (2,)")
def _(group, odd):
    z, labels = labelled(group)
    return SupConLoss(group=group)(z, torch.arange(3) if odd else labels)


@refusal("a queue", "TypeError: queue: got int, expected an EmbeddingQueue")
def _(group, odd):
    return MoCoLoss(group=group)(*pair(group), 3 if odd else torch.ones(5, 4))


@refusal("a weight", "ValueError: row_weight: got shape (3,), expected (2,)")
def _(group, odd):
    x, y = pair(group)
    weight = torch.ones(3 if odd else len(x))
    return InfoNCELoss(group=group)(x, y, row_weight=weight)


@refusal("a positive", "ValueError: positives: got 5, expected -1 to 1, rows of y, or -1")
def _(group, odd):
    x, y = pair(group)
    places = torch.arange(len(x)).clamp(max=len(y) - 1)
    return CLIPLoss(group=group)(x, y, positives=places + 5 * odd * (places == 0))


@refusal(
    "a temperature of each row", "ValueError: temperature: got shape (3,), expected () or (2,)"
)
def _(group, odd):
    x, y = pair(group)
    return CLIPLoss(torch.full((3 if odd else len(x),), 0.1), group=group)(x, y)


@refusal("a guide", "ValueError: guide: got shape (3, 2), expected (2, 2)")
def _(group, odd):
    x, y = pair(group)
    guide = torch.ones(3 if odd else len(x), 2), torch.ones(len(x), 2)
    return GISTLoss(group=group)(x, y, guide=guide)


@refusal("keys", "ValueError: keys: got shape (2, 5), expected (N, 4)")
def _(group, odd):
    EmbeddingQueue(4, 4).enqueue(embeddings(group, dim=4 + odd), group=group)


@refusal("an operand", "ValueError: cols: got [], expected 'label' among them")
def _(group, odd):
    from contrastloss.channel import same

    x, y = pair(group)
    label = {"label": torch.arange(len(x))}
    cols = {} if odd else label
    return pair_stats(x, y, (MAX(pairs=(same("label"),)),), group=group, rows=label, cols=cols)


# ---- differences that are allowed: all ranks return the same value -------------------------------


def whole(group, odd, how):
    """The value of a loss, which is the same on all ranks."""
    x, y = pair(group)
    if how == "nan":
        x = x * torch.nan if odd else x
    if how == "an empty rank" and odd:
        x, y = x[:0], y[:0]
    if how == "all empty":
        x, y = x[:0], y[:0]
    if how == "strides" and odd:
        x, y = (column_major(v) for v in (x, y))
    loss = CLIPLoss(0.5 if how != "1 and 1.0" else 1 if odd else 1.0, group=group)
    if how == "evaluation" and odd:
        loss.eval()
    value = loss(x, y)
    value.backward()
    return value.item()


SOUND = ("nan", "an empty rank", "all empty", "strides", "1 and 1.0", "evaluation")


# ---- ranks that do not answer: the others name them within the timeout ---------------------------

#: name: function that the ranks call
LOST = {}


def lost(name):
    def add(function):
        assert name not in LOST
        LOST[name] = function
        return function

    return add


@lost("no call")
def _(group, odd, seconds):
    loss = CLIPLoss(group=group)
    loss(*pair(group))
    if not odd:
        loss(*pair(group))


@lost("no enqueue")
def _(group, odd, seconds):
    if not odd:
        EmbeddingQueue(4, 4).enqueue(embeddings(group), group=group)


@lost("no header")
def _(group, odd, seconds):
    CLIPLoss(group=group, equal_sizes=odd)(*(v[:2] for v in pair(group)))


@lost("an error after the header")
def _(group, odd, seconds):
    class Mine(InfoNCELoss):
        def combine(self, negative, positive, scores):
            if odd:
                raise ArithmeticError("mine")
            return super().combine(negative, positive, scores)

    with contextlib.suppress(ArithmeticError):
        Mine(group=group)(*pair(group))


def backward(strategy):
    @lost(f"no backward, {strategy}")
    def _(group, odd, seconds):
        value = CLIPLoss(group=group, strategy=strategy)(*pair(group))
        if not odd:
            value.backward()

    @lost(f"an error in backward, {strategy}")
    def _(group, odd, seconds):
        x, y = pair(group)
        value = CLIPLoss(group=group, strategy=strategy)(x, y)

        def fail(grad):
            raise ArithmeticError("mine")

        if odd:
            value.register_hook(fail)
        with contextlib.suppress(ArithmeticError):
            value.backward()

    @lost(f"a hanging backward, {strategy}")
    def _(group, odd, seconds):
        value = CLIPLoss(group=group, strategy=strategy)(*pair(group))
        if odd:
            time.sleep(1.5 * seconds)
            return
        value.backward()

    @lost(f"backward passes in another order, {strategy}")
    def _(group, odd, seconds):
        loss = CLIPLoss(group=group, strategy=strategy)
        values = [loss(*pair(group)) for _ in range(2)]
        for value in values[::-1] if odd else values:
            value.backward()


for strategy in ("gather", "ring"):
    backward(strategy)


@lost("a hanging rank")
def _(group, odd, seconds):
    if odd:
        time.sleep(1.5 * seconds)
        return
    CLIPLoss(group=group)(*pair(group))


# ---- running them --------------------------------------------------------------------------------


def attempt(function, *args):
    """The result (None, a float or a text) and the seconds that the call took."""
    began = time.monotonic()
    try:
        found = function(*args)
        found = found if found is None or isinstance(found, float) else "a value"
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    return found, time.monotonic() - began


def agreeing(group, table, name):
    """Run a fault after which the group must still work: its result, its seconds, and then the
    value of another loss."""
    function = {"disagreement": DISAGREEMENTS, "refusal": REFUSALS}[table][name][0]
    found = attempt(function, group, dist.get_rank(group) == 1)
    return *found, CLIPLoss(group=group)(*pair(group)).item()


def sound(group, how):
    return whole(group, dist.get_rank(group) == 1, how)


def all_lost(group, seconds):
    """Run every fault that breaks a group, all at once, each in its own group. All processes take
    part in creating the groups."""
    wait = timedelta(seconds=seconds)
    groups = {name: dist.new_group(range(3), timeout=wait) for name in LOST}
    member, odd = dist.get_rank() < 3, dist.get_rank() == 1
    calls = {name: (LOST[name], groups[name], odd, seconds) for name in LOST if member}
    return at_once(group, calls)


def at_once(group, calls):
    """The results of several calls, started at the same time on all ranks."""
    found, begin = {}, threading.Event()

    def work(name):
        begin.wait()
        found[name] = attempt(*calls[name])

    threads = [threading.Thread(target=work, args=(name,)) for name in calls]
    for thread in threads:
        thread.start()
    dist.barrier(group)
    begin.set()
    for thread in threads:
        thread.join()
    return found


def dying(rank, world, folder, seconds, results):
    """Rank 1 exits while the others are in a forward or backward pass."""
    start(rank, world, folder, seconds)
    groups = {
        name: dist.new_group(range(world), timeout=timedelta(seconds=seconds))
        for name in ("forward", "gather", "ring")
    }
    losses = {
        name: CLIPLoss(group=group, strategy="ring" if name == "ring" else "gather")
        for name, group in groups.items()
    }
    values = {name: loss(*pair(groups[name])) for name, loss in losses.items()}
    if rank == 1:
        dist.barrier()
        time.sleep(0.5)
        os._exit(1)
    forward = (losses["forward"], *pair(groups["forward"]))
    calls = {"forward": forward, **{name: (values[name].backward,) for name in ("gather", "ring")}}
    found = at_once(None, calls)
    results.put((rank, found))
    results.close()
    results.join_thread()
    os._exit(0)  # a normal exit would wait for the broken group
