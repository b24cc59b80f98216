"""The page: the verdict, what to do, the models, and how the rest of the lab came about."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from typing import TYPE_CHECKING

from labsync.render.html.bars import disk, timeline
from labsync.render.html.cards import SIGNS, card
from labsync.render.html.elements import Html, div, element, join, section, sentence, span
from labsync.render.units import files, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from labsync.report import ErrorReport, Report
    from labsync.run_record import MachineReport, RunRecord

# Nothing is loaded and nothing runs, whatever got into the page.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_HERE = {"ok", "ahead", "modified", "extra"}
_GLANCE = {
    "pass": "ran",
    "degraded": "ran degraded",
    "fail": "failed",
    "pending": "pending",
    "skipped": "not run",
}


def page(record: RunRecord, pictures: Mapping[str, bytes]) -> str:
    """Return the whole page; `pictures` are PNG files by the model's name."""
    title = f"{record.project} – labsync report"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        Html(f"<style>{_style()}</style>"),
    )
    body = element("body", _header(record), element("main", *_sections(record, pictures)), _footer(record))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _style() -> str:
    return resources.files("labsync.render.html").joinpath("style.css").read_text("utf-8")


def _header(record: RunRecord) -> Html:
    verdict, tone = _verdict(record.report)
    counted: Counter[str] = Counter(result.result for result in record.report.smoke)
    glance = [
        span(f"count {kind}", f"{SIGNS[kind]} {counted[kind]} {word}")
        for kind, word in _GLANCE.items()
        if counted[kind]
    ]
    return element(
        "header",
        element("p", f"labsync {record.command}", class_="kicker"),
        element("h1", record.project),
        element("p", verdict, class_=f"verdict {tone}"),
        div("glance", *glance),
        element("p", _when(record), class_="note"),
        div("tiles", *_tiles(record)),
    )


def _tiles(record: RunRecord) -> Iterator[Html]:
    """Yield the rest of the lab at a glance."""
    report = record.report
    if report.artifacts:
        whole = sum(artifact.disk in _HERE for artifact in report.artifacts)
        yield _tile("artifacts here", f"{whole} of {len(report.artifacts)}")
        yield _tile("moved", size(report.transferred.bytes))
    if report.environment:
        yield _tile("environment", report.environment.state)
    if report.kernel:
        yield _tile("kernel", report.kernel.state)
    if record.disk.total:
        yield _tile("free, less the reserve", size(max(record.disk.free - record.disk.reserve, 0)))
    yield _tile("GPU", record.machine.gpu or "none")


def _tile(name: str, value: str) -> Html:
    return div("tile", span("number", value), span("name", name))


def _verdict(report: Report) -> tuple[str, str]:
    """Return the one sentence of the page, and its tone: `pass`, `degraded`, `fail` or `pending`."""
    ran = [result for result in report.smoke if result.result in {"pass", "degraded"}]
    models = f"{len(report.smoke)} model{'' if len(report.smoke) == 1 else 's'}"
    if report.exit_code:
        failed = [result for result in report.smoke if result.result == "fail"]
        what = f"{len(failed)} of {models} did not run" if failed else "The lab is not whole"
        return f"{what} (exit code {report.exit_code}).", "fail"
    pending = sum(result.result == "pending" for result in report.smoke)
    if pending:
        return f"Everything is here; a GPU session finishes {pending} of {models}.", "pending"
    if not report.smoke:
        return "Everything is here; the manifest names no smoke test.", "pass"
    if any(result.result == "degraded" for result in ran):
        return f"{len(ran)} of {models} ran, not all as asked.", "degraded"
    if len(ran) == len(report.smoke):
        return f"Every model ran: {len(ran)} of {len(ran)}.", "pass"
    return f"{len(ran)} of {models} ran.", "degraded"


def _when(record: RunRecord) -> str:
    when = record.time.replace("T", " ").replace("+00:00", " UTC")
    return f"{when} · {record.seconds:.0f} s · {record.machine.host}"


def _sections(record: RunRecord, pictures: Mapping[str, bytes]) -> Iterator[Html]:
    report = record.report
    if report.errors:
        yield section("What to do", *map(_error, report.errors))
    if report.smoke:
        earlier = {item.name: item for item in record.earlier}
        cards = [
            card(result, pictures.get(result.name, b""), earlier.get(result.name), record.machine.memory)
            for result in report.smoke
        ]
        note = "Memory: the bar is the measured peak, libraries included; the mark is what was expected."
        yield section("Models", div("cards", *cards), note=note)
    yield from _times(record)
    if record.disk.total:
        yield section("Disk", disk(record.disk), note=_budget(record))
    if report.artifacts:
        yield section("Artifacts", _artifacts(report))
    yield section("Lab and machine", _facts(record))


def _times(record: RunRecord) -> Iterator[Html]:
    stages = [item for item in record.spans if item.kind == "stage"]
    carried = [item for item in record.spans if item.kind == "artifact"]
    moved = record.report.transferred
    note = f"{files(moved.files)}, {size(moved.bytes)}: {size(moved.from_origin)} from origins, "
    note += f"{size(moved.from_mirror)} from the mirror, {size(moved.to_mirror)} to the mirror."
    if stages:
        yield section("Stages", timeline(stages, {}))
    if carried:
        said = {a.name: f"{_files(a.files)}, {size(a.bytes)}" for a in record.report.artifacts}
        yield section("Transfers", timeline(carried, said), note=note)


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _budget(record: RunRecord) -> str:
    used = sum(use.bytes for use in record.disk.uses)
    note = f"{size(record.disk.free)} of {size(record.disk.total)} are free; the lab takes {size(used)}"
    return f"{note} of its budget of {size(record.disk.budget)}." if record.disk.budget else f"{note}."


def _error(error: ErrorReport) -> Html:
    named = [span("about", error.artifact)] if error.artifact and error.artifact not in error.message else []
    issues = [element("li", sentence(issue)) for issue in error.issues]
    return div(
        "error",
        element("p", *named, sentence(error.message), class_="cause"),
        *([element("ul", *issues)] if issues else []),
        *(element("p", sentence(line), class_="cure") for line in error.hint.split("\n") if line),
    )


def _artifacts(report: Report) -> Html:
    rows = [
        [
            element("td", a.name),
            element("td", span(f"state {_tone(a.disk)}", a.disk)),
            element("td", span(f"state {_tone(a.mirror)}", a.mirror)),
            element("td", f"{a.files}", class_="number"),
            element("td", size(a.bytes), class_="number"),
            element("td", sentence(a.reason)),
        ]
        for a in report.artifacts
    ]
    return _table(("artifact", "disk", "mirror", "files", "size", ""), rows)


def _tone(state: str) -> str:
    return "pass" if state == "ok" else "fail" if state in {"failed", "missing", "conflict"} else "pending"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Html]]) -> Html:
    head = element("thead", element("tr", *(_head(name) for name in heads)))
    body = element("tbody", *(element("tr", *row) for row in rows))
    return div("scroll", element("table", head, body))


def _head(name: str) -> Html:
    return element("th", name, class_="number" if name in {"files", "size"} else "name")


def _facts(record: RunRecord) -> Html:
    report = record.report
    facts = {"Mirror": record.mirror}
    for name, built in (("Environment", report.environment), ("Kernel", report.kernel)):
        if built:
            facts[name] = ", ".join(filter(None, (built.name, built.state, built.reason, built.prefix)))
    asked = {
        name: getattr(report.mirror_requests, name)
        for name in ("LIST", "GET", "HEAD", "PUT", "POST", "DELETE")
    }
    facts["Requests to the mirror"] = (
        ", ".join(f"{count} {name}" for name, count in asked.items() if count) or "none"
    )
    facts |= _machine(record.machine)
    rows = [join(element("dt", name), element("dd", value)) for name, value in facts.items()]
    return element("dl", *rows)


def _machine(machine: MachineReport) -> dict[str, str]:
    return {
        "Machine": f"{machine.host}, {machine.system}, {machine.cores} cores, {size(machine.memory)}",
        "Python": machine.python,
        "GPU": machine.gpu or "none in this session",
    }


def _footer(record: RunRecord) -> Html:
    said = f"Written by labsync {record.labsync}; labsync-report.json beside it holds the same for programs."
    return element("footer", said)
