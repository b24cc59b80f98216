"""The results as a picture: horizontal bars, drawn by hand. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.tables import contenders, good, is_peer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.goals import Row
    from benchmarks.tables import Run

WIDTH = 860
LEFT = 200  # of the bars
SCALE = 150.0  # pixels of the best peer's bar
LONGEST = 3.4  # times the best peer; longer bars are cut
BAR, GAP, TITLE = 14, 4, 30
OURS, THEIRS, BESIDE, INK, FAINT = "#1a7f5a", "#9aa5b1", "#d5dae0", "#1f2933", "#7b8794"
FAINT_TEXT = f'fill="{FAINT}"'


@dataclass(frozen=True, slots=True)
class Bar:
    """One contender's median, in seconds and in times of the best peer's."""

    name: str
    seconds: float
    ratio: float
    colour: str


def bars(row: Row, runs: Sequence[Run]) -> list[Bar]:
    """Return a row's bars, the fastest first; none where no peer has a result."""
    found = good(runs, row.name)
    walls = {
        name: median(run.wall for run in found[name]) for name in contenders(runs, row.name) if name in found
    }
    peers = [wall for name, wall in walls.items() if is_peer(row, name)]
    if not peers:
        return []
    best = min(peers)
    return sorted(
        (Bar(name, wall, wall / best, _colour(row, name)) for name, wall in walls.items()),
        key=lambda bar: bar.seconds,
    )


def _colour(row: Row, name: str) -> str:
    if name.startswith("labsync"):
        return OURS
    return BESIDE if name in row.beside else THEIRS


def draw(rows: Iterable[Row], runs: Sequence[Run]) -> str:
    """Return the picture as SVG: bars for each row with peers, the best peer's always of one length."""
    parts: list[str] = []
    y = 10
    for row in rows:
        if not any(run.resent is not None for run in runs if run.row == row.name) and (
            found := bars(row, runs)
        ):
            parts.append(_text(10, y + 18, row.title, f'fill="{INK}" font-size="14" font-weight="bold"'))
            parts += _group(found, y + TITLE)
            y += TITLE + len(found) * (BAR + GAP) + 12
    parts.append(_text(10, y + 14, "seconds, medians; the dashed line is the fastest peer", FAINT_TEXT))
    height = y + 26
    frame = (
        f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    )
    background = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    font = 'font-family="system-ui, sans-serif" font-size="12"'
    return "\n".join([f"<svg {frame} {font}>", background, *parts, "</svg>", ""])


def _group(found: Sequence[Bar], y: int) -> list[str]:
    parts = []
    for number, bar in enumerate(found):
        top = y + number * (BAR + GAP)
        length = SCALE * min(bar.ratio, LONGEST)
        shape = f'x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" fill="{bar.colour}"'
        cut = " …" if bar.ratio > LONGEST else ""
        parts += [
            _text(LEFT - 8, top + 11, bar.name, f'fill="{INK}" text-anchor="end"'),
            f"<rect {shape}/>",
            _text(
                LEFT + max(length, SCALE) + 6,
                top + 11,
                f"{cut} {bar.seconds:.2f} s  ({bar.ratio:.2f})",
                FAINT_TEXT,
            ),
        ]
    x, bottom = LEFT + SCALE, y + len(found) * (BAR + GAP)
    line = f'x1="{x}" y1="{y - 3}" x2="{x}" y2="{bottom}" stroke="{INK}" stroke-dasharray="2 3"'
    return [*parts, f"<line {line}/>"]


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y}" {style}>{escape(text.strip())}</text>'
