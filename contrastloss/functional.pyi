# Written by `python -m contrastloss.testing stubs`; do not edit.
from typing import Literal, overload

from torch import Tensor

@overload
def clip(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[False] = False,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
) -> Tensor: ...
@overload
def clip(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[True],
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.07,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
@overload
def dcl(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[False] = False,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
    weight: float | None = None,
    detach_weight: bool = True,
) -> Tensor: ...
@overload
def dcl(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[True],
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
    weight: float | None = None,
    detach_weight: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]: ...
@overload
def hard_negative(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[False] = False,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
    beta: float = 1.0,
    tau_plus: float = 0.1,
) -> Tensor: ...
@overload
def hard_negative(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[True],
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.5,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
    beta: float = 1.0,
    tau_plus: float = 0.1,
) -> tuple[Tensor, dict[str, Tensor]]: ...
@overload
def info_nce(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[False] = False,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
) -> Tensor: ...
@overload
def info_nce(
    x: Tensor,
    y: Tensor,
    negatives: Tensor | None = None,
    *,
    return_stats: Literal[True],
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
@overload
def nt_xent(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[False] = False,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
) -> Tensor: ...
@overload
def nt_xent(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[True],
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]: ...
@overload
def siglip(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[False] = False,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
    bias: float | Tensor = -10.0,
) -> Tensor: ...
@overload
def siglip(
    x: Tensor,
    y: Tensor,
    *,
    return_stats: Literal[True],
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
    bias: float | Tensor = -10.0,
) -> tuple[Tensor, dict[str, Tensor]]: ...
@overload
def supcon(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[False] = False,
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
    variant: Literal["out", "in"] = "out",
) -> Tensor: ...
@overload
def supcon(
    z: Tensor,
    labels: Tensor,
    *,
    return_stats: Literal[True],
    logit_scale: Tensor | float | None = None,
    logit_bias: Tensor | float | None = None,
    temperature: float | Tensor = 0.1,
    normalize: bool = True,
    reduction: Literal["mean", "sum", "none"] = "mean",
    backend: str | None = None,
    validate: bool = False,
    variant: Literal["out", "in"] = "out",
) -> tuple[Tensor, dict[str, Tensor]]: ...
