"""Which published system each preset belongs to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["NAMELESS", "SEEDS", "UNVERIFIED", "Seed", "seed"]

F = TypeVar("F", bound=Callable)


@dataclass(frozen=True)
class Seed:
    """A system, the names in this package that it needs, and a note."""

    number: int
    system: str
    names: tuple[str, ...]
    note: str


#: the systems by their number in docs/seeds.md; ``seed`` adds those that have a preset
SEEDS: dict[int, Seed] = {
    4: Seed(
        4,
        "LVM-Med",
        ("ops.pair_topk", "ops.gather_scores"),
        "edges and affinities of its graphs; the matching solver and its gradient are not here",
    )
}

#: systems without a public name, and why
NAMELESS = {
    5: ("BBM (Generate to Ground)", "a diffusion model's noise error: no loss of embeddings"),
    6: ("PixCell", "a diffusion model's noise error: no loss of embeddings"),
    23: ("Co-Reward", "a majority vote over discrete answers: no loss of embeddings"),
    52: ("MFM (Masked Feature Modeling)", "cross entropy of segments: no loss of embeddings"),
}


#: systems whose options are from memory of the papers, not checked against released code
UNVERIFIED = frozenset(
    {18, 28, 29, 33, 34, 42, 43, 44, 45, 46, 48, 49, 50, 51, 53, 54, 55, 56, 58, 64, 65, 66}
    | {68, 72, 75}
)


def seed(number: int, system: str, *names: str, note: str = "") -> Callable[[F], F]:
    """Registers the preset of a system; ``names`` are other parts of this package that it uses."""

    def register(function: F) -> F:
        assert number not in {**SEEDS, **NAMELESS}, number
        SEEDS[number] = Seed(number, system, (f"presets.{function.__name__}", *names), note)
        return function

    return register
