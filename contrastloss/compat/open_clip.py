"""The losses of open_clip (``open_clip.loss``). Features are not normalised: the models do that."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import functional, ops
from ..channel import COL, INDEX, LSE, SUM, same
from ..distributed import WORLD
from ..losses.soft_target import PULLS
from .hand_over import say_once, theirs
from .ranks import Kept, gathered, share_of_gradient, warn_of_the_share

__all__ = ["ClipLoss", "CoCaLoss", "DistillClipLoss", "SigLipLoss"]

MODULE = "open_clip.loss"


def _number(value: Tensor | float | None) -> Tensor | float | None:
    """A scale or bias of one element as a 0-dim tensor."""
    return value.reshape(()) if isinstance(value, Tensor) and value.numel() == 1 else value


def _overrides(loss: nn.Module, base: type) -> bool:
    """Whether the loss's class has other logits or labels than its base here."""
    names = ("get_logits", "get_ground_truth")
    return any(getattr(type(loss), name) is not getattr(base, name) for name in names)


class ClipLoss(nn.Module):
    r"""Symmetric cross entropy of images and their texts:

    :math:`\tfrac12 \operatorname{CE}(s) + \tfrac12 \operatorname{CE}(s^T), \qquad
    s_{ij} = \text{logit\_scale} \, \langle x_i, y_j \rangle + \text{logit\_bias}`

    ``forward(image_features, text_features, logit_scale, logit_bias=None, output_dict=False)`` has
    features (N, D) and returns a 0-dim tensor, or ``{"contrastive_loss": loss}``.

    Args:
        local_loss: return the mean of this rank's rows, not of all ranks'.
        gather_with_grad: gradients of rows reach their ranks. The default is their library's:
            gradients averaged over W ranks are then 1/W of those of the whole batch and, with
            local_loss alone, rows get none as columns of others; the log says so once. With both
            options a step is that of one process on the whole batch.
        cache_labels: keep what :meth:`get_ground_truth` returns.
        rank, world_size: of the default process group; 1: this process alone.
        use_horovod: computed by open_clip.

    A subclass that overrides :meth:`get_logits` or :meth:`get_ground_truth` is computed from their
    results, as a matrix.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
    2021.
    """

    def __init__(
        self,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ) -> None:
        super().__init__()
        self.local_loss = local_loss
        self.gather_with_grad = gather_with_grad
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size
        self.use_horovod = use_horovod
        self.prev_num_logits = 0
        self.labels: dict[torch.device, Tensor] = {}

    def get_ground_truth(self, device: torch.device, num_logits: int) -> Tensor:
        """The column of each row's positive, (num_logits,)."""
        if self.prev_num_logits == num_logits and device in self.labels:
            return self.labels[device]
        labels = torch.arange(num_logits, device=device)
        if self.world_size > 1 and self.local_loss:
            labels = labels + num_logits * self.rank
        if self.cache_labels:
            self.labels[device] = labels
            self.prev_num_logits = num_logits
        return labels

    def get_logits(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The matrices of scores of images and of texts, as their library has them. ``forward``
        does without them."""
        x, y = image_features, text_features
        if self.world_size > 1:
            kept: Kept = "all" if self.gather_with_grad else "none" if self.local_loss else "own"
            every_x, every_y = gathered(x, kept), gathered(y, kept)
            if not self.local_loss:
                x, y = every_x, every_y
        else:
            every_x, every_y = x, y
        by_image, by_text = logit_scale * x @ every_y.mT, logit_scale * y @ every_x.mT
        if logit_bias is not None:
            by_image, by_text = by_image + logit_bias, by_text + logit_bias
        return by_image, by_text

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        if self.use_horovod:
            loss = self._theirs()(image_features, text_features, logit_scale, logit_bias)
        elif _overrides(self, ClipLoss):
            logits = self.get_logits(image_features, text_features, logit_scale, logit_bias)
            loss = self._cross_entropy(*logits)
        else:
            numbers = {"logit_scale": _number(logit_scale), "logit_bias": _number(logit_bias)}
            loss = self._contrastive(image_features, text_features, normalize=False, **numbers)
        return {"contrastive_loss": loss} if output_dict else loss

    def _theirs(self) -> nn.Module:
        options = ("local_loss", "gather_with_grad", "cache_labels", "rank", "world_size")
        made: nn.Module = theirs(MODULE, "ClipLoss", "use_horovod=True")(
            **{name: getattr(self, name) for name in options}, use_horovod=True
        )
        return made

    def _cross_entropy(self, by_image: Tensor, by_text: Tensor) -> Tensor:
        labels = self.get_ground_truth(by_image.device, by_image.shape[0])
        return (F.cross_entropy(by_image, labels) + F.cross_entropy(by_text, labels)) / 2

    def _contrastive(self, x: Tensor, y: Tensor, **named: Any) -> Tensor:
        if self.world_size == 1:
            return functional.clip(x, y, **named)
        name, whole = type(self).__name__, "local_loss=True, gather_with_grad=True"
        if self.local_loss and not self.gather_with_grad:
            say_once(
                f"{name}: as in its library, with local_loss=True alone rows get no gradient as "
                f"columns of other rows; {whole} gives the gradients of the whole batch"
            )
            named["positives"] = self.get_ground_truth(x.device, x.shape[0])
            sides = (x, gathered(y, "none")), (y, gathered(x, "none"))
            return torch.stack([functional.info_nce(*side, **named) for side in sides]).mean()
        if not self.gather_with_grad:
            warn_of_the_share(name, self.world_size, whole)
            x, y = (share_of_gradient(v, 1 / self.world_size) for v in (x, y))
        if self.local_loss:
            return functional.clip(x, y, group=WORLD, reduction="none", **named).mean()
        return functional.clip(x, y, group=WORLD, **named)


class CoCaLoss(ClipLoss):
    """:class:`ClipLoss` and the cross entropy of captions.

    ``forward(image_features, text_features, logits, labels, logit_scale, output_dict=False)`` has
    logits (N, L, C) and labels (N, L), and returns the two weighted losses, or a dict of
    ``contrastive_loss`` and ``caption_loss``.

    Args:
        caption_loss_weight, clip_loss_weight: multiply the losses; without a clip_loss_weight the
            contrastive loss is 0.
        pad_id: the label that is left out.
        local_loss, ..., use_horovod: those of ClipLoss.

    Source: Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, 2022.
    """

    def __init__(
        self,
        caption_loss_weight: float,
        clip_loss_weight: float,
        pad_id: int = 0,
        local_loss: bool = False,
        gather_with_grad: bool = False,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        use_horovod: bool = False,
    ) -> None:
        super().__init__(local_loss, gather_with_grad, cache_labels, rank, world_size, use_horovod)
        self.clip_loss_weight = clip_loss_weight
        self.caption_loss_weight = caption_loss_weight
        self.caption_loss = nn.CrossEntropyLoss(ignore_index=pad_id)

    def forward(  # type: ignore[override]
        self,
        image_features: Tensor,
        text_features: Tensor,
        logits: Tensor,
        labels: Tensor,
        logit_scale: Tensor | float,
        output_dict: bool = False,
    ) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        contrastive = torch.tensor(0, device=logits.device)
        if self.clip_loss_weight:
            loss = super().forward(image_features, text_features, logit_scale)
            assert isinstance(loss, Tensor)
            contrastive = self.clip_loss_weight * loss
        caption = self.caption_loss(logits.mT, labels) * self.caption_loss_weight
        if output_dict:
            return {"contrastive_loss": contrastive, "caption_loss": caption}
        return contrastive, caption


#: the scores, of rows and columns, that a teacher's softmax expects
_TAUGHT = tuple(PULLS["teacher"].values())
_BOTH, _ALIGNED = (LSE(), LSE(axis=COL)), SUM("id", pairs=(same(INDEX),))


class DistillClipLoss(ClipLoss):
    r""":class:`ClipLoss`, and the cross entropy of a teacher's softmax p and the student's, of
    images and of texts:

    :math:`-\frac{1}{2N} \sum_{ij} p_{ij} \log q_{ij}`

    ``forward(image_features, text_features, logit_scale, dist_image_features, dist_text_features,
    dist_logit_scale, output_dict=False)`` returns both losses, or a dict of ``contrastive_loss``
    and ``distill_loss``. With several ranks, and for a teacher that requires gradients, all scores
    are in memory.
    """

    def dist_loss(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        """The cross entropy of two matrices of scores."""
        taught = teacher_logits.softmax(dim=1) * student_logits.log_softmax(dim=1)
        return -taught.sum(dim=1).mean(dim=0)

    def forward(  # type: ignore[override]
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        dist_image_features: Tensor,
        dist_text_features: Tensor,
        dist_logit_scale: Tensor | float,
        output_dict: bool = False,
    ) -> tuple[Tensor, Tensor] | dict[str, Tensor]:
        student = image_features, text_features, logit_scale
        teacher = dist_image_features, dist_text_features, dist_logit_scale
        learns = any(isinstance(v, Tensor) and v.requires_grad for v in teacher)
        dense = {"world_size > 1": self.world_size > 1, "a teacher with gradients": learns}
        dense["get_logits of a subclass"] = _overrides(self, ClipLoss)
        dense["dist_loss of a subclass"] = type(self).dist_loss is not DistillClipLoss.dist_loss
        for reason in [name for name, holds in dense.items() if holds]:
            say_once(f"{type(self).__name__}: with {reason}, all scores are in memory")
        found = (
            self._dense(student, teacher) if any(dense.values()) else self._fused(student, teacher)
        )
        if output_dict:
            return dict(zip(("contrastive_loss", "distill_loss"), found, strict=True))
        return found

    def _dense(self, student: tuple, teacher: tuple) -> tuple[Tensor, Tensor]:
        logits, taught = self.get_logits(*student), self.get_logits(*teacher)
        by_image, by_text = map(self.dist_loss, taught, logits)
        return self._cross_entropy(*logits), (by_image + by_text) / 2

    def _fused(self, student: tuple, teacher: tuple) -> tuple[Tensor, Tensor]:
        x, y, scale = student
        with torch.no_grad():
            t, u, taught = teacher
            stat = ops.stat_dtype(t)
            t, u = t.to(stat) * taught, u.to(stat)
            minus = [-lse for lse in ops.pair_stats(t, u, _BOTH)]
        rows, cols, positive, by_row, by_col = ops.pair_stats(
            x, y, (*_BOTH, _ALIGNED, *_TAUGHT), scale=_number(scale),
            rows={"target": t, "minus_lse": minus[0]}, cols={"target": u, "minus_lse": minus[1]},
        )  # fmt: skip
        everything = (rows + cols) / 2
        return (everything - positive).mean(), (everything - (by_row + by_col) / 2).mean()


class SigLipLoss(nn.Module):
    r"""The sigmoid loss of images and their texts, the mean over this rank's images:

    :math:`\frac1N \sum_{ij} \log(1 + e^{-z_{ij} s_{ij}}), \qquad
    s_{ij} = \text{logit\_scale} \, \langle x_i, y_j \rangle + \text{logit\_bias}, \quad
    z_{ij} = 2 [i = j] - 1`

    ``forward(image_features, text_features, logit_scale, logit_bias, output_dict=False)`` has
    features (N, D), of texts those of all ranks, and returns a 0-dim tensor, or
    ``{"contrastive_loss": loss}``.

    Args:
        cache_labels: without effect, as in their library.
        rank, world_size: of the default process group; 1: this process alone.
        dist_impl: ``'bidir'``, ``'shift'``, ``'reduce'`` or ``'gather'``, or None for the first:
            how their library exchanges texts, with the same result. Ours holds two ranks' texts.

    A subclass that overrides :meth:`get_logits` or :meth:`get_ground_truth` is computed from their
    results, as matrices.

    Source: Zhai et al., Sigmoid Loss for Language Image Pre-Training, 2023.
    """

    def __init__(
        self,
        cache_labels: bool = False,
        rank: int = 0,
        world_size: int = 1,
        dist_impl: str | None = None,
    ) -> None:
        super().__init__()
        self.cache_labels = cache_labels
        self.rank = rank
        self.world_size = world_size
        self.dist_impl = dist_impl or "bidir"
        known = ("bidir", "shift", "reduce", "gather")
        if self.dist_impl not in known:
            raise ValueError(f"dist_impl: got {dist_impl!r}, expected one of {', '.join(known)}")
        self.prev_num_logits = 0
        self.labels: dict[torch.device, Tensor] = {}

    def get_ground_truth(
        self, device: torch.device, dtype: torch.dtype, num_logits: int, negative_only: bool = False
    ) -> Tensor:
        """1 for pairs and -1 for all others, (num_logits, num_logits)."""
        labels = torch.full((num_logits, num_logits), -1, device=device, dtype=dtype)
        return labels if negative_only else labels.fill_diagonal_(1)

    def get_logits(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
    ) -> Tensor:
        """The matrix of scores. ``forward`` does without it."""
        logits = logit_scale * image_features @ text_features.mT
        return logits if logit_bias is None else logits + logit_bias

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None,
        output_dict: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        if _overrides(self, SigLipLoss):
            loss = self._dense(image_features, text_features, logit_scale, logit_bias)
        else:
            spread: dict[str, Any] = {}
            if self.world_size > 1:
                spread = {"group": WORLD, "strategy": "ring"}
            loss = functional.siglip(
                image_features,
                text_features,
                logit_scale=_number(logit_scale),
                logit_bias=0.0 if logit_bias is None else _number(logit_bias),
                normalize=False,
                reduction="none",
                **spread,
            ).mean()
        return {"contrastive_loss": loss} if output_dict else loss

    def _dense(self, x: Tensor, y: Tensor, *numbers: Tensor | float | None) -> Tensor:
        texts = gathered(y, "all").chunk(self.world_size) if self.world_size > 1 else [y]
        own, total = self.rank if self.world_size > 1 else 0, x.new_zeros(())
        for rank, columns in enumerate(texts):
            logits = self.get_logits(x, columns, *numbers)  # type: ignore[arg-type]
            signs = self.get_ground_truth(x.device, x.dtype, len(x), negative_only=rank != own)
            total = total - F.logsigmoid(signs * logits).sum() / len(x)
        return total
