"""Prototypical contrastive loss (ProtoNCE)."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..channel import LSE, SUM, Channel, differs, same
from ..memory import check_integers
from ..ops.check import check_embeddings
from ..options import Positive, Temperature, checked, shape
from .base.checks import check_matrix
from .base.pair_loss import PairLoss
from .base.scores import wide

__all__ = ["ProtoNCELoss"]

CLUSTER = "cluster"


class ProtoNCELoss(PairLoss, name="proto_nce"):
    r"""ProtoNCE: softmax over prototypes, with the prototype of the row's cluster as positive.

    :math:`\ell_i = -\log \frac{e^{s_{i a_i}}}{\sum_k e^{s_{ik}}},
    \qquad s_{ik} = \cos(z_i, c_k) / \phi_k`

    with the row's cluster :math:`a_i`, and :math:`\phi_k = \tau` or element k of ``density``. The
    prototypes may be cluster centres, class weights or the regions of points.

    Args:
        temperature: tau, positive; ignored if a density is given. Default: 0.1.
        group: distributes the rows of z over ranks, for the mean and its gradient. The prototypes
            have to be the same on all ranks.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        z: (N, D).
        prototypes: (K, D), which get gradients unless detached.
        assignment: (N,), integers. A row whose assignment is not in 0, ..., K - 1, e.g. -1, has
        loss 0 and is not counted in the mean.
        density: (K,), positive, a temperature per prototype, without gradient; None for tau.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Li et al., Prototypical Contrastive Learning of Unsupervised Representations, 2021. The
    paper adds InfoNCE and averages over several clusterings.
    """

    temperature: Temperature = 0.1

    inputs: ClassVar[dict[str, str]] = {
        "z": "N D",
        "prototypes": "K D",
        "assignment": "N int",
        "density": "K float",
    }
    without: ClassVar[dict[str, str]] = {"memory": "its columns are prototypes"}
    negatives = (differs(CLUSTER),)

    def channels(self) -> tuple[Channel, ...]:
        return LSE(), SUM(psi="id", pairs=(same(CLUSTER),))

    def forward(
        self,
        z: Tensor,
        prototypes: Tensor,
        assignment: Tensor,
        *,
        density: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        for name, value in (("logit_scale", logit_scale), ("logit_bias", logit_bias)):
            if density is not None and value is not None:
                raise ValueError(f"{name}: got a value with density, expected None")
        k, assignment = prototypes.shape[0], assignment.long()  # k may not fit into its dtype
        rows = {CLUSTER: assignment}
        cols = {CLUSTER: torch.arange(k, device=z.device)}
        scores = self.scores(z, prototypes, logit_scale, logit_bias, alone=True)
        if density is not None:
            scores = scores.plain()
            scores.col_scale = density.detach().to(wide(z).dtype).reciprocal()
        (everything, own), extra = self.measure(scores, self._channels, rows, cols)
        counted = (assignment >= 0) & (assignment < k)
        losses = torch.where(counted, everything - own, 0.0)
        return self.finish(losses, extra, own, counted=counted)

    @staticmethod
    @torch.no_grad()
    def density(
        z: Tensor,
        prototypes: Tensor,
        assignment: Tensor,
        *,
        alpha: float = 10.0,
        temperature: float = 0.1,
        by: Literal["distance", "product"] = "distance",
    ) -> Tensor:
        r"""The paper's temperature per prototype, (K,), to pass as ``density``:

        :math:`\phi_k \propto \frac{\sum_{i : a_i = k} \lVert z_i - c_k \rVert}
        {n_k \log(n_k + \alpha)}`

        ``by='product'`` has :math:`\sqrt{\langle z_i, c_k \rangle}` in place of the norm, as MEOW's
        released code has it with ``alpha=5``: products are what its search returns. Negative ones
        count as 0.

        Vectors are not normalised. Densities are clamped to their 10th and 90th percentiles and
        scaled to the mean ``temperature``. A prototype with fewer than two rows gets the largest
        density of the others. Densities are at least a thousandth of the mean, since the scores of
        rows that equal their prototype would otherwise be infinite.
        """
        check_matrix("z", z)
        check_embeddings("prototypes", prototypes, ("z", z))
        if prototypes.ndim != 2 or prototypes.shape[1] != z.shape[1]:
            got = shape(prototypes)
            raise ValueError(f"prototypes: got shape {got}, expected (K, {z.shape[1]})")
        check_integers("assignment", assignment, z.shape[0], z)
        alpha = checked("alpha", alpha, Positive)
        temperature = checked("temperature", temperature, Positive)
        by = checked("by", by, Literal["distance", "product"])
        k, assignment = prototypes.shape[0], assignment.long()
        counted = (assignment >= 0) & (assignment < k)
        index = torch.where(counted, assignment, 0)
        if not k or not z.shape[0]:
            return wide(prototypes).new_full((k,), temperature)
        own = wide(prototypes)[index]
        if by == "distance":
            far = (wide(z) - own).norm(dim=1)
        else:
            far = (wide(z) * own).sum(1).clamp_min(0).sqrt()
        found = far.new_zeros(2, k)
        found.index_add_(1, index, torch.stack([far * counted, counted.to(far.dtype)]))
        total, size = found
        phi = total / (size * torch.log(size + alpha)).clamp_min(1e-12)
        several = size > 1
        phi = torch.where(several, phi, torch.where(several, phi, 0.0).max())
        low, high = torch.quantile(phi, phi.new_tensor([0.1, 0.9])).unbind()
        phi = phi.clamp(low, high)
        phi = phi.clamp_min(1e-3 * phi.mean())
        mean = phi.mean()
        # if all rows equal their prototypes, every density is the temperature
        return torch.where(mean > 0, temperature * phi / mean, temperature)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Some rows have no cluster; the others are about as close to their own prototype as to
        the nearest other one."""
        k = n // 3 + 3
        assignment = torch.randint(-1, k, (n,), generator=generator)
        prototypes, noise = (torch.randn(m, d, generator=generator).double() for m in (k, n))
        cosine = min(0.8, math.sqrt(2 * math.log(k) / d))
        z = cosine * prototypes[assignment] + math.sqrt(1 - cosine**2) * noise
        return z, 2 * prototypes, assignment

    @staticmethod
    def reference(
        z: Tensor,
        prototypes: Tensor,
        assignment: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        density: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        s = z @ prototypes.mT
        s = scale * s + bias if density is None else s / density
        counted = (assignment >= 0) & (assignment < len(prototypes))
        index = torch.where(counted, assignment, 0)
        rows = torch.nn.functional.cross_entropy(s, index, reduction="none")
        return torch.where(counted, rows, 0.0), counted
