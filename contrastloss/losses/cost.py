"""CoST: contrastive learning of trend and seasonal representations of time series."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .. import ops
from ..channel import LSE, Channel
from ..memory import EmbeddingQueue
from ..options import NonNegative, Temperature
from .base.loss import softplus
from .base.pair_loss import PairLoss
from .base.scores import wide
from .base.series import between, dense_between, in_turn
from .moco import MoCoLoss

__all__ = ["CoSTLoss"]

_NEGATIVES = (LSE(),)


class CoSTLoss(PairLoss, name="cost"):
    r"""CoST: MoCo on trend representations plus NT-Xent on the spectra of seasonal ones.

    :math:`\ell_i = \text{MoCo}_i(q, k) + \tfrac12\, \text{weight}\; \frac1F \sum_f \left(
    \text{NT-Xent}_i(|X_f|, |Y_f|) + \text{NT-Xent}_i(\arg X_f, \arg Y_f)\right)`

    where :math:`X_f` and :math:`Y_f` are the real Fourier transforms over time of x and y, which
    are unit vectors at every time step. Amplitudes and phases are compared across all series, per
    frequency, by dot products without temperature. The released code adds 1e-6 to the real and
    imaginary parts; here a vanishing coefficient has amplitude and phase 0, without gradient.

    Args:
        weight: weight >= 0 of the seasonal terms. Default: 0.0005, as in the released code.
        temperature: tau of the trend term, positive. Default: 0.07.
        normalize: whether the trend term uses cosines, and x and y are normalised at every time
            step. Default: True.
        group: distributes the series over ranks; the queue has to be the same on all ranks.
            Spectra are always gathered, whatever the strategy.
        return_stats: for the trend term.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.

    Shape:
        query, key: (B, D), the trends of two views at one time step.
        queue: an EmbeddingQueue of earlier keys, which gets no gradient, or a tensor (K, D).
        x_seasonal, y_seasonal: (B, T, E).
        ids: (B,), for a queue made with ``ids=True``; stored keys of the query's own instance are
        ignored.
        logit_scale, logit_bias: those of the trend term.
        Loss: (), or (B,) for ``reduction='none'``.

    Source: Woo et al., CoST: Contrastive Learning of Disentangled Seasonal-Trend Representations
    for Time Series Forecasting, 2022.
    """

    weight: NonNegative = 0.0005
    _: KW_ONLY
    temperature: Temperature = 0.07

    inputs: ClassVar[dict[str, str]] = {
        "query": "N D",
        "key": "N D",
        "x_seasonal": "N T>=1 E float",
        "y_seasonal": "N T>=1 E float",
    }

    def channels(self) -> tuple[Channel, ...]:
        return _NEGATIVES

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        queue: EmbeddingQueue | Tensor,
        x_seasonal: Tensor,
        y_seasonal: Tensor,
        *,
        ids: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        blocks = (self.queued(queue, ids, ("query", query)),)
        scores = self.scores(query, key, logit_scale, logit_bias, blocks=blocks)
        (negative,), extra = self.measure(scores, self._channels)
        positive = scores.aligned()
        # amplitudes of all frequencies and then phases: (2F, 2B, E)
        x, y = (torch.cat(_spectrum(v, self.normalize)) for v in (x_seasonal, y_seasonal))
        spectra = self.scores(in_turn(x, y), None, 1.0)
        spectra.normalize = False
        amplitudes, phases = between(spectra).chunk(2)
        seasonal = (amplitudes + phases).mean(0)
        losses = softplus(negative - positive) + 0.5 * self.weight * seasonal
        return self.finish(losses, extra, positive, aligned=scores)

    @staticmethod
    def reference(
        query: Tensor,
        key: Tensor,
        queue: Tensor,
        x_seasonal: Tensor,
        y_seasonal: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        weight: float,
    ) -> Tensor:
        x, y = (torch.fft.rfft(v, dim=1).movedim(1, 0) for v in (x_seasonal, y_seasonal))
        seasonal = dense_between(x.abs(), y.abs(), 1.0) + dense_between(x.angle(), y.angle(), 1.0)
        trend = MoCoLoss.reference(query, key, queue, scale=scale, bias=bias)
        return trend + weight / 2 * seasonal.mean(0)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """A queue, and seasonal series of five time steps and four features."""

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        cosine = min(0.9, math.sqrt(2 * math.log(2 * n + 2) / d))
        query, other = normalize(normal(2, n, d), dim=-1)
        key = cosine * query + math.sqrt(1 - cosine**2) * other
        x = normal(n, 5, 4)
        return query, 1.5 * key, normal(2 * n + 3, d), x, x + 0.3 * normal(n, 5, 4)


def _spectrum(x: Tensor, unit: bool) -> tuple[Tensor, Tensor]:
    """Amplitudes and phases, (F, B, E), of the Fourier transform over time; both are 0 where a
    coefficient is only rounding error."""
    x = wide(x)
    if unit:
        x = ops.unit(x)
    if not x.shape[0]:  # not every FFT backend accepts an empty batch
        return (empty := x[:, : x.shape[1] // 2 + 1].movedim(1, 0)), empty
    found = torch.fft.rfft(x, dim=1).movedim(1, 0)
    real, imaginary = found.real, found.imag + 0.0  # -0 would change the phase pi to -pi
    floor = x.shape[1] * torch.finfo(x.dtype).eps * x.detach().abs().amax(1)
    power = real.detach().square() + imaginary.detach().square()
    some = ~(power <= floor.square())  # keeps NaN
    real = torch.where(some, real, 1.0)
    imaginary = torch.where(some, imaginary, 0.0)
    amplitude = (real.square() + imaginary.square()).sqrt()
    return torch.where(some, amplitude, 0.0), torch.atan2(imaginary, real)
