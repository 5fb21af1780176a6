"""A step whose encoders run twice: in chunks without graph, then again with cached gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ..options import Count, checked
from .calls import Call, Calls

__all__ = ["GradCache", "step"]


class GradCache:
    r"""One training step of a batch that is too large for the encoders' activations.

    .. code-block:: python

        with GradCache(chunk_size=64) as cache:
            x = cache(image_encoder, images)
            y = cache(text_encoder, **tokens)
            loss = CLIPLoss()(x, y)
            loss.backward()

    A call runs the encoder on chunks of rows without graph, so that only embeddings are kept. The
    loss is one exact loss of all of them. Its backward pass first gives the gradients of the
    embeddings, then runs the encoders again, chunk by chunk with graph, and adds their gradients
    to ``.grad`` of the parameters. These are those of the same chunks run with graph: random
    numbers, autocast and the buffers of modules in train mode are what they were in the first run,
    for dropout, spectral norm and BatchNorm. A step costs one more forward pass of the encoders.

    Any loss will do, with a process group, too, and any way to call its ``backward``: scaled, of
    several losses, or by a trainer. Without ``with``, a new object is needed for each step.

    Args:
        chunk_size: rows of a chunk.
        modules: DDP and FSDP modules in functions that are encoders. They reduce gradients once, in
            the last chunk of a step; those that are encoders, or parts of them, are found.
        sync: whether gradients are reduced at all; False for all but the last of several steps that
            are accumulated.

    ``cache(encoder, *args, chunk_size=None, **kwargs)`` returns ``encoder(*args, **kwargs)``.
    Tensors, and lists of anything but tensors, are cut along their rows; dicts, HF batches, tuples
    and lists of tensors part by part; 0-dim tensors and all else are for every chunk. Tensors of
    the encoder's output, of any structure, have a row for each row of its inputs, or no dimension:
    of these the last chunk's is returned. ``chunk_size`` overrides that of the step. Without grad
    mode only the first run takes place.

    BatchNorm in train mode normalises the rows of a chunk, of which a warning tells once. Random
    numbers of a generator of one's own are not restored. Second derivatives are not available, nor
    are gradients by ``torch.autograd.grad``, which does not reach the parameters.

    Raises:
        TypeError: an encoder that returns no tensor, or a chunk of another dtype; no input has
            rows.
        ValueError: inputs of different lengths or with a graph; a chunk that changes length.
        RuntimeError: the block ends without a gradient of the embeddings, as the loss was not
            called; a second backward pass.

    Source: Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup,
    2021.
    """

    def __init__(
        self, chunk_size: int, *, modules: Sequence[nn.Module] = (), sync: bool = True
    ) -> None:
        self.chunk_size = checked("chunk_size", chunk_size, Count)
        listed = modules if isinstance(modules, (list, tuple)) else [modules]
        for value in listed:
            if not isinstance(value, nn.Module) or listed is not modules:
                got = type(value).__name__
                raise TypeError(f"modules: got {got}, expected a list of modules")
        self.modules, self.sync = tuple(modules), checked("sync", sync, bool)
        self._begin()

    def _begin(self) -> None:
        self._calls = Calls(self.sync)
        self._node: Tensor | None = None

    def __enter__(self) -> GradCache:
        self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        calls = self._calls
        self._begin()
        if kind is None and calls.held and not calls.done:
            raise RuntimeError(
                "GradCache: got no gradient of the embeddings, expected loss.backward(), of a loss "
                "of these embeddings, inside the block"
            )

    def __call__(
        self, encoder: Callable[..., Any], *args: Any, chunk_size: int | None = None, **kwargs: Any
    ) -> Any:
        if not callable(encoder):
            raise TypeError(f"encoder: got {type(encoder).__name__}, expected a callable")
        size = self.chunk_size if chunk_size is None else checked("chunk_size", chunk_size, Count)
        call = Call(encoder, args, kwargs, size, self.modules)
        leaves = call.first()
        if torch.is_grad_enabled() and call.learns:
            if self._calls.done:
                self._begin()
            if self._node is None:
                self._node = self._calls.node()
            leaves = self._calls.add(call, self._node)
        return call.outputs.joined(leaves)


def step(
    loss: Callable[..., Tensor],
    *calls: tuple[Callable[..., Any], Any],
    chunk_size: int | Sequence[int],
    backward: Callable[[Tensor], Any] | None = None,
    modules: Sequence[nn.Module] = (),
    sync: bool = True,
) -> Tensor:
    """The loss of a step, whose gradients are added to ``.grad`` of the encoders' parameters.

    .. code-block:: python

        value = step(CLIPLoss(), (image_encoder, images), (text_encoder, tokens), chunk_size=64)

    Args:
        loss: called with what the encoders return, in the order of calls.
        calls: pairs of an encoder and its inputs: a mapping has the keyword arguments, a tuple the
            positional ones, anything else is one argument.
        chunk_size: rows of a chunk, or one number for each call.
        backward: what is done with the loss; None for ``loss.backward()``. With a GradScaler:
            ``lambda value: scaler.scale(value).backward()``.
        modules, sync: as of :class:`GradCache`, which also says what is raised.

    Returns:
        the loss, detached.
    """
    found = checked("chunk_size", chunk_size, Count | Sequence[Count])
    sizes = found if isinstance(found, tuple) else (found,) * len(calls)
    if len(sizes) != len(calls):
        raise ValueError(f"chunk_size: got {len(sizes)} numbers, expected one of {len(calls)}")
    for k, call in enumerate(calls):
        if not isinstance(call, (tuple, list)) or len(call) != 2:
            got = type(call).__name__
            raise TypeError(f"calls[{k}]: got {got}, expected a pair of an encoder and its inputs")
    with GradCache(1, modules=modules, sync=sync) as cache:
        embeddings = []
        for (encoder, given), size in zip(calls, sizes, strict=True):
            if isinstance(given, Mapping):
                embeddings.append(cache(encoder, chunk_size=size, **given))
            else:
                args = given if isinstance(given, tuple) else (given,)
                embeddings.append(cache(encoder, *args, chunk_size=size))
        value = loss(*embeddings)
        (Tensor.backward if backward is None else backward)(value)
    return value.detach()
