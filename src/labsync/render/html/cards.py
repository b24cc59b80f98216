"""One card for each model: what it saw and said, where, in how much memory, and what to do if not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.render.html.bars import memory, shares
from labsync.render.html.elements import Html, div, element, image, sentence, span
from labsync.render.units import size

if TYPE_CHECKING:
    from labsync.report import SmokeResult
    from labsync.run_record import Earlier

SIGNS = {"pass": "✓", "degraded": "▲", "fail": "✕", "pending": "…", "skipped": "–"}
_WORDS = {
    "pass": "runs",
    "degraded": "runs, degraded",
    "fail": "does not run",
    "pending": "waits for a GPU",
    "skipped": "not run",
}
_SEEN = {
    "segment-anything": "Its masks over the picture, the best first; the dot is the point in question.",
    "image-feature-extraction": "The picture, and the first three principal components of its features.",
    "video-classification": "Frames of the clip.",
    "image-text-to-text": "The picture it was asked about.",
    "feature-extraction": "Two sentences as numbers: red cells above zero, blue ones below.",
}
_SAME = 0.05  # of a number: below it nothing is worth telling


def badge(result: str) -> Html:
    """Return a result as a sign and a word; colour alone tells nobody anything."""
    return span(f"badge {result}", f"{SIGNS[result]} {result}")


def card(result: SmokeResult, picture: bytes, earlier: Earlier | None, machine_memory: int) -> Html:
    """Return a model's card; without a picture (empty) there is none on it."""
    ran = result.result in {"pass", "degraded"}
    parts = [
        div("title", element("h3", result.name), badge(result.result)),
        element("p", f"{result.task} · {_WORDS[result.result]}{_where(result)}", class_="where"),
    ]
    if picture:
        said = _SEEN.get(result.task, "What the model saw.")
        parts.append(element("figure", image(picture, said), element("figcaption", said)))
    if ran:
        parts.append(_answer(result))
    elif result.reason:
        parts.append(element("p", sentence(result.reason), class_="cause"))
    if result.best and ran:
        parts.append(shares(result.best))
    if result.hint:
        parts.append(element("p", element("b", "What to do: "), sentence(result.hint), class_="cure"))
    parts += [element("p", sentence(note), class_="remark") for note in result.notes]
    if result.peak_bytes:
        parts.append(memory(result, machine_memory))
    if earlier:
        parts.append(element("p", _compared(result, earlier), class_="earlier"))
    return element("article", *parts, class_=f"card {result.result}")


def _where(result: SmokeResult) -> str:
    if not result.device:
        return ""
    named = f" ({result.device_name})" if result.device_name else ""
    precision = f", {result.dtype}" if result.dtype else ""
    return f" on {result.device}{named}{precision}, {result.seconds:.1f} s"


def _answer(result: SmokeResult) -> Html:
    head, answer, said = result.reason.partition("answer: ")
    if result.task == "image-text-to-text" and answer:
        return element("blockquote", said or "(nothing)", element("footer", head.rstrip(" ;")))
    return element("p", sentence(result.reason), class_="answer")


def _compared(result: SmokeResult, earlier: Earlier) -> str:
    when = earlier.time[:16].replace("T", " ")
    if result.result != earlier.result:
        return f"Last time ({when}): {earlier.result}."
    changes = []
    if result.seconds and _differ(result.seconds, earlier.seconds):
        changes.append(f"{earlier.seconds:.1f} s")
    if result.peak_bytes and _differ(result.peak_bytes, earlier.peak_bytes):
        changes.append(size(earlier.peak_bytes))
    return f"Last time ({when}): {earlier.result}, {' and '.join(changes) or 'the same time and memory'}."


def _differ(now: float, before: float) -> bool:
    return abs(now - before) > _SAME * max(abs(now), abs(before))
