"""Draws docs/images/tiles.svg: how scores are visited tile by tile, in four steps."""

from __future__ import annotations

from collections.abc import Iterator

#: cells along an axis, cells of a tile along it, and the length of a cell
CELLS, TILE, CELL = 6, 2, 22
#: of one panel
WIDTH, HEIGHT = 400, 300
LEFT, TOP = 70, 92
INK, FAINT, ROWS, COLUMNS, SCORES = "#263238", "#cfd8dc", "#4c8bf5", "#f59e0b", "#7c3aed"


def svg() -> str:
    panels = [first, second, third, fourth]
    body = [
        f'<g transform="translate({WIDTH * (k % 2)} {HEIGHT * (k // 2)})">\n'
        + "\n".join(draw())
        + "\n</g>"
        for k, draw in enumerate(panels)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {2 * HEIGHT}" '
            'font-family="sans-serif" font-size="14">',
            "<title>How scores are visited tile by tile, in four steps</title>",
            f'<rect width="{2 * WIDTH}" height="{2 * HEIGHT}" fill="white"/>',
            *body,
            "</svg>\n",
        ]
    )


def first() -> Iterator[str]:
    yield from caption("1. Multiply some rows of x by some rows of y:", "one tile of scores.")
    yield from scene(row=1, column=1, tile=True)


def second() -> Iterator[str]:
    yield from caption("2. Add its numbers to the sums of its rows", "and columns, then forget it.")
    yield from scene(row=1, column=1, tile=True, sums=5)
    x, y = LEFT + 4 * CELL, TOP + 3 * CELL
    yield arrow(x + 4, y, LEFT + CELLS * CELL + 18, y)
    yield arrow(LEFT + 3 * CELL, TOP + 4 * CELL + 4, LEFT + 3 * CELL, TOP + CELLS * CELL + 18)


def third() -> Iterator[str]:
    yield from caption(
        "3. After the last tile, the sums are complete.", "The loss is made of them."
    )
    yield from scene(sums=CELLS)
    yield text(LEFT + CELLS * CELL + 52, TOP + 3 * CELL + 5, "loss")


def fourth() -> Iterator[str]:
    yield from caption(
        "4. Backward: compute each tile again. With the", "sums, it gives its part of dx and dy."
    )
    yield from scene(row=1, column=1, tile=True, sums=CELLS)
    yield arrow(LEFT + 2 * CELL - 4, TOP + 3 * CELL, LEFT - 6, TOP + 3 * CELL)
    yield arrow(LEFT + 3 * CELL, TOP + 2 * CELL - 4, LEFT + 3 * CELL, TOP - 6)
    yield text(LEFT - 56, TOP + 3 * CELL + 5, "dx")
    yield text(LEFT + 3 * CELL + 10, TOP - 36, "dy")


def scene(
    row: int | None = None, column: int | None = None, tile: bool = False, sums: int = 0
) -> Iterator[str]:
    """x at the left, y above, the scores that are never stored, and sums along both axes."""
    for i in range(CELLS):
        for j in range(CELLS):
            inside = tile and i // TILE == row and j // TILE == column
            yield cell(LEFT + j * CELL, TOP + i * CELL, SCORES if inside else "none", not inside)
    for i in range(CELLS):
        mine, other = (row in (None, i // TILE)), (column in (None, i // TILE))
        yield cell(LEFT - 30, TOP + i * CELL, ROWS, opacity=1 if mine else 0.3)
        yield cell(LEFT + i * CELL, TOP - 30, COLUMNS, opacity=1 if other else 0.3)
        if sums:
            full = 0.35 if sums < CELLS and i // TILE > 1 else 1
            yield cell(LEFT + CELLS * CELL + 22, TOP + i * CELL, ROWS, opacity=full)
            yield cell(LEFT + i * CELL, TOP + CELLS * CELL + 22, COLUMNS, opacity=full)
    yield text(LEFT - 56, TOP + 14, "x")
    yield text(LEFT + 4, TOP - 36, "y")


def caption(*lines: str) -> Iterator[str]:
    for k, line in enumerate(lines):
        yield text(14, 22 + 18 * k, line)


def text(x: int, y: int, words: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{INK}">{words}</text>'


def cell(x: int, y: int, fill: str, dashed: bool = False, opacity: float = 1) -> str:
    dashes = ' stroke-dasharray="2 3"' if dashed else ""
    return (
        f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" fill="{fill}" '
        f'stroke="{FAINT}"{dashes} opacity="{opacity:g}"/>'
    )


def arrow(x: int, y: int, to_x: int, to_y: int) -> str:
    """A line with a head, along one axis."""
    a, b = (to_x > x) - (to_x < x), (to_y > y) - (to_y < y)
    head = f"M{to_x} {to_y} l{-8 * a - 5 * b} {-8 * b - 5 * a} l{10 * b} {10 * a} z"
    line = f"M{x} {y} L{to_x - 6 * a} {to_y - 6 * b}"
    return f'<path d="{line}" stroke="{INK}" stroke-width="2"/><path d="{head}" fill="{INK}"/>'
