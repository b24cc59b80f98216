"""Bars: of shares, of memory, of time; each says in words what it shows, for those who do not see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.render.html.elements import Html, div, element, span
from labsync.render.units import size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from labsync.report import Share, SmokeResult
    from labsync.run_record import DiskReport, Span

_COLOURS = 8  # in the style sheet, for the parts of a disk
_LONG, _SHORT = 20, 2  # seconds, from which on tenths or hundredths say nothing
_KEPT = 7  # parts of a disk that are named; the rest is one


def percent(part: float, whole: float) -> str:
    """Return a share for a style: between 0 and 100 %."""
    return f"{100 * min(max(part / whole, 0), 1):.2f}%" if whole > 0 else "0%"


def _fill(part: float, whole: float, class_: str) -> Html:
    return element("i", class_=class_, style=f"width:{percent(part, whole)}")


def shares(best: Sequence[Share]) -> Html:
    """Return the best classes, the longest bar for the best one."""
    most = max((item.share for item in best), default=0.0)
    rows = [
        div(
            "share",
            span("label", item.label),
            span("track", _fill(item.share, most, "fill")),
            span("value", f"{item.share:.0%}"),
        )
        for item in best
    ]
    return div("shares", *rows)


def memory(result: SmokeResult, machine_memory: int) -> Html:
    """Return the memory that a model took of its device's, and what was expected."""
    on_gpu = result.device.startswith("cuda")
    whole = result.device_bytes if on_gpu else machine_memory
    kind = "GPU memory" if on_gpu else "memory"
    said = (
        f"{size(result.peak_bytes)} of {size(whole)} {kind}" if whole else f"{size(result.peak_bytes)} {kind}"
    )
    expected = f"{size(result.estimated_bytes)} for weights and activations" if result.estimated_bytes else ""
    marks = [_fill(result.peak_bytes, whole, "fill")]
    if result.estimated_bytes and whole:
        marks.append(element("b", class_="mark", style=f"left:{percent(result.estimated_bytes, whole)}"))
    return div(
        "memory",
        span("track", *marks),
        span("said", said, *([f" · expected {expected}"] if expected else [])),
    )


def timeline(spans: Sequence[Span], said: Mapping[str, str]) -> Html:
    """Return spans as bars over the time from the first one's start; `said` adds words to some by name."""
    begin = min((item.start for item in spans), default=0.0)
    whole = max((item.end for item in spans), default=0.0) - begin
    rows = []
    for item in spans:
        seconds = item.end - item.start
        left, width = percent(item.start - begin, whole), percent(seconds, whole)
        bar = element(
            "i", class_=f"fill {item.kind}", style=f"left:min({left},100% - 4px);width:max({width},4px)"
        )
        value = ", ".join(filter(None, (said.get(item.name), f"{seconds:.1f} s")))
        rows.append(div("moment", span("label", item.name), span("track", bar), span("value", value)))
    digits = 0 if whole >= _LONG else 1 if whole >= _SHORT else 2
    ticks = [span("tick", f"{begin + whole * part / 4:.{digits}f} s") for part in range(5)]
    return div("timeline", *rows, div("moment axis", span("label"), span("ticks", *ticks), span("value")))


def disk(report: DiskReport) -> Html:
    """Return what takes the disk, what is free, and what is never to be used."""
    known = sorted(report.uses, key=lambda use: -use.bytes)
    parts = [(use.name, use.bytes, f"part{number % _COLOURS}") for number, use in enumerate(known[:_KEPT])]
    if rest := sum(use.bytes for use in known[_KEPT:]):
        parts.append(("the rest of the lab", rest, f"part{_KEPT}"))
    taken = report.total - report.free
    others = taken - sum(count for _, count, _ in parts)
    reserve = min(report.reserve, report.free)
    parts += [("everything else", max(others, 0), "others"), ("free", report.free - reserve, "free")]
    parts.append(("free, but the reserve", reserve, "reserve"))
    shown = [part for part in parts if part[1] > 0]
    bars = [
        element(
            "i", class_=class_, style=f"width:{percent(count, report.total)}", title=f"{name}: {size(count)}"
        )
        for name, count, class_ in shown
    ]
    legend = [
        element("li", element("i", class_=class_), span("name", name), span("value", size(count)))
        for name, count, class_ in shown
    ]
    return div("disk", div("stack", *bars), element("ul", *legend, class_="legend"))
