"""What a preset is, and which published system each belongs to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter, Signature, cleandoc, signature
from textwrap import fill
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, overload

from torch import nn

from ..losses import Loss

__all__ = ["OTHERS", "PRESETS", "Other", "Preset", "Row", "composed", "row", "setting", "table"]

P = ParamSpec("P")
M = TypeVar("M", bound=nn.Module)
V = TypeVar("V")
#: no options
NOTHING: Mapping[str, Any] = MappingProxyType({})
#: the number of systems
SYSTEMS = 77


@dataclass(frozen=True, eq=False, repr=False)
class Preset(Generic[P, M]):
    """Makes the loss of a published system, with the system's options; called as a function.

    Args:
        name: its name in ``contrastloss.presets``.
        number: that of the system, 1 to 77.
        system: the name of the system.
        loss: what is called: the class of a loss, or a function that composes several.
        options: what it is called with.
        datasets: options by data set, where the system has them; the first one is the default, the
            keyword ``dataset`` names another.
        paper: the paper's options where the released code has others; the keyword
            ``released=False`` takes them. No code was compared with these.
        source: the repository of the released code, with which value and gradients were compared.
        guess: what is a guess, if anything is: the preset is then not verified, and its losses show
            ``verified=False``.
        note: how the system uses the loss.
        uses: other names of this package that the system needs.
        paragraphs: of its docstring; the first is the title of the paper.
    """

    name: str
    number: int
    system: str
    loss: Callable[P, M]
    options: Mapping[str, Any] = field(default_factory=dict)
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paper: Mapping[str, Any] | None = None
    source: str = ""
    guess: str = ""
    note: str = ""
    uses: tuple[str, ...] = ()
    paragraphs: str = field(kw_only=True)

    def __post_init__(self) -> None:
        made = {
            "__doc__": self._documentation(),
            "__signature__": self._signature(),
            "__name__": self.name,
            "__qualname__": self.name,
            "__module__": __package__,
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)
        assert self.name not in PRESETS, self.name
        PRESETS[self.name] = self

    @property
    def verified(self) -> bool:
        """Whether nothing of it is a guess."""
        return not self.guess

    def __call__(self, *args: P.args, **options: P.kwargs) -> M:
        given: dict[str, Any] = {**options}
        system = {**self.options}
        if self.paper is not None and not given.pop("released", True):
            system |= self.paper
        if self.datasets:
            dataset = given.pop("dataset", next(iter(self.datasets)))
            system |= setting("dataset", dataset, self.datasets)
        compared = self.verified and options.get("released", True)
        positional = list(signature(self).parameters)[: len(args)]
        system = {k: v for k, v in system.items() if k not in positional}
        made = self.loss(*args, **{**system, **given})
        if not compared:
            for module in made.modules():
                if isinstance(module, Loss):
                    module.remark = "verified=False"
        return made

    def __repr__(self) -> str:
        if isinstance(self.loss, type):
            called = f"{self.name}: {self._spelled(self.options)}"
        else:
            parameters = signature(self).parameters.values()
            plain = [p.replace(annotation=Parameter.empty) for p in parameters]
            called = f"{self.name}{Signature(plain)}"
        return f"<preset {called}, verified={self.verified}>"

    def __reduce__(self) -> str:
        return self.name

    def _spelled(self, options: Mapping[str, Any]) -> str:
        name = self.loss.__name__
        return f"{name}({', '.join(f'{k}={v!r}' for k, v in options.items())})"

    def _signature(self) -> Signature:
        whole = signature(self.loss)
        parameters = [
            p.replace(default=self.options.get(p.name, p.default))
            for p in whole.parameters.values()
        ]
        if self.paper is not None:
            kind = Parameter.KEYWORD_ONLY
            parameters.append(Parameter("released", kind, default=True, annotation="bool"))
        if self.datasets:
            first, kind = next(iter(self.datasets)), Parameter.KEYWORD_ONLY
            parameters.append(Parameter("dataset", kind, default=first, annotation="str"))
        if isinstance(self.loss, type):
            whole = whole.replace(return_annotation=self.loss.__name__)
        return whole.replace(parameters=parameters)

    def _documentation(self) -> str:
        parts = [cleandoc(self.paragraphs)]
        if isinstance(self.loss, type):
            parts.append(_wrapped(f"Returns ``{self._spelled(self.options)}``."))
        if self.datasets:
            parts.append("\n".join(_item(*item) for item in self.datasets.items()))
        if self.paper is not None:
            parts.append(_wrapped(f"``released=False``, as in the paper: {_listed(self.paper)}."))
        if self.note:
            parts.append(_wrapped(f"{self.note[0].upper()}{self.note[1:]}."))
        if self.source:
            parts.append(_wrapped(f"Released code: {self.source}."))
        parts.append(_wrapped(f"Not verified: {self.guess}.") if self.guess else "Verified.")
        return "\n\n".join(parts)


def _item(dataset: str, options: Mapping[str, Any]) -> str:
    return f"- ``dataset={dataset!r}``: {_listed(options) or 'these'}"


def _wrapped(text: str) -> str:
    return fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"``{name}={value!r}``" for name, value in options.items())


class Other(NamedTuple):
    """A system without a preset: the names of this package that it needs, if any, and why."""

    system: str
    note: str
    uses: tuple[str, ...] = ()


class Row(NamedTuple):
    """A system in :func:`table`."""

    number: int
    system: str
    loss: str
    source: str
    verified: bool


#: all presets by name
PRESETS: dict[str, Preset] = {}

#: the systems that have none
OTHERS = {
    4: Other(
        "LVM-Med",
        "edges and affinities of its graphs; examples/graph_matching.py has a solver, its gradient "
        "and the loss",
        ("ops.pair_topk", "ops.gather_scores"),
    ),
    5: Other("BBM (Generate to Ground)", "a diffusion model's noise error: no loss of embeddings"),
    6: Other("PixCell", "a diffusion model's noise error: no loss of embeddings"),
    23: Other("Co-Reward", "a majority vote over discrete answers: no loss of embeddings"),
    52: Other("MFM (Masked Feature Modeling)", "cross entropy of segments: no loss of embeddings"),
}


@overload
def row(
    name: str,
    number: int,
    system: str,
    title: str,
    loss: Callable[P, M],
    options: Mapping[str, Any] = ...,
    *,
    source: str = ...,
    guess: str = ...,
    note: str = ...,
    uses: tuple[str, ...] = ...,
) -> Preset[P, M]: ...
@overload
def row(
    name: str,
    number: int,
    system: str,
    title: str,
    loss: Callable[P, M],
    options: Mapping[str, Any] = ...,
    *,
    datasets: Mapping[str, Mapping[str, Any]] = ...,
    paper: Mapping[str, Any] | None = ...,
    source: str = ...,
    guess: str = ...,
    note: str = ...,
    uses: tuple[str, ...] = ...,
) -> Preset[..., M]: ...
def row(
    name: str,
    number: int,
    system: str,
    title: str,
    loss: Callable[..., M],
    options: Mapping[str, Any] = NOTHING,
    **more: Any,
) -> Preset[..., M]:
    """The preset that is one loss with options; ``more`` are fields of :class:`Preset`."""
    return Preset(name, number, system, loss, options, paragraphs=_wrapped(title), **more)


def composed(
    number: int,
    system: str,
    *,
    source: str = "",
    guess: str = "",
    note: str = "",
    uses: tuple[str, ...] = (),
) -> Callable[[Callable[P, M]], Preset[P, M]]:
    """Makes a preset of a function that composes one; its docstring begins with the title of the
    paper."""

    def made(function: Callable[P, M]) -> Preset[P, M]:
        name, text = function.__name__, function.__doc__ or ""
        more: Any = {"source": source, "guess": guess, "note": note, "uses": uses}
        return Preset(name, number, system, function, paragraphs=text, **more)

    return made


def setting(name: str, value: str, choices: Mapping[str, V]) -> V:
    """What a choice stands for.

    Raises:
        ValueError: there is no such choice; the message lists those that there are.
    """
    if value not in choices:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")
    return choices[value]


def table() -> list[Row]:
    """The 77 systems: number, system, losses, the repository of the released code, and whether all
    of its presets are verified. Those without a loss of embeddings have an empty ``loss``, and
    nothing to verify."""
    rows = []
    for number in range(1, SYSTEMS + 1):
        if number in OTHERS:
            rows.append(Row(number, OTHERS[number].system, "", "", False))
            continue
        presets = [preset for preset in PRESETS.values() if preset.number == number]
        losses = [
            type(module).__name__
            for preset in presets
            for module in preset().modules()
            if isinstance(module, Loss)
        ]
        sources = [preset.source for preset in presets if preset.source]
        rows.append(
            Row(
                number,
                presets[0].system,
                ", ".join(dict.fromkeys(losses)),
                ", ".join(dict.fromkeys(sources)),
                all(preset.verified for preset in presets),
            )
        )
    return rows
