"""Write the results into `docs/performance.md`, between its markers, and draw `docs/performance.svg`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.chart import draw
from benchmarks.goals import ROWS
from benchmarks.tables import Run, goals_table, row_table, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.goals import Row

DOCS = Path(__file__).parent.parent / "docs"
BEGIN = "<!-- results: `make bench` writes what stands from here -->"
END = "<!-- to here -->"
_FIELDS = [field.name for field in dataclasses.fields(Run)]


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the benchmark: where and when, the runs, and each contender's command."""

    machine: Mapping[str, Any]
    runs: tuple[Run, ...]
    commands: Mapping[tuple[str, str], str]

    @property
    def day(self) -> str:
        """The day it was begun."""
        return str(self.machine["date"])


def read(lines: Iterable[str]) -> Session:
    """Return a session from its lines."""
    machine: dict[str, Any] = {}
    runs: list[Run] = []
    commands: dict[tuple[str, str], str] = {}
    for line in lines:
        record = json.loads(line)
        kind = record["type"]
        if kind == "machine":
            machine = record
        elif kind == "run":
            runs.append(Run(**{name: record[name] for name in _FIELDS}))
        elif kind == "command":
            commands[record["row"], record["contender"]] = record["text"]
    return Session(machine, tuple(runs), commands)


def newest(sessions: Sequence[Session]) -> dict[str, Session]:
    """Return the session to show for each row: of those that ran it the last, the oldest being first."""
    return {run.row: session for session in sessions for run in session.runs}


def text(rows: Sequence[Row], shown: Mapping[str, Session]) -> str:
    """Return everything that stands between the markers."""
    runs = [run for row in rows if row.name in shown for run in shown[row.name].runs if run.row == row.name]
    parts = [
        "![Medians of all rows with peers](performance.svg)",
        "## Goals",
        goals_table(verdicts(rows, runs)),
    ]
    machines = {_machine(shown[row.name]): None for row in rows if row.name in shown}
    parts += ["## Machine and versions", *machines]
    for row in rows:
        if row.name in shown:
            session = shown[row.name]
            parts += [f"## {row.title[0].upper()}{row.title[1:]}", f"Server: {row.server}; {session.day}."]
            parts += [row_table(row, runs), _commands(row, session)]
    return "\n\n".join(part for part in parts if part)


def _machine(session: Session) -> str:
    it = session.machine
    versions = ", ".join(f"{name} {number}" for name, number in it["versions"].items())
    machine = f"{it['cpu']}, {it['cores']} cores, {it['memory']} of memory, Linux {it['kernel']}"
    return f"{session.day}: {machine}; {it['rounds']} rounds; {versions}."


def _commands(row: Row, session: Session) -> str:
    lines = [text for (name, _), text in session.commands.items() if name == row.name]
    return "\n".join(["```", *lines, "```"]) if lines else ""


def put_between(page: str, content: str) -> str:
    """Return the page with everything between its markers replaced."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the page lacks `{BEGIN}` or `{END}`")
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{after}"


def write(results: Sequence[Path]) -> None:
    """Write page and picture from these results, the newest last."""
    shown = newest([read(path.read_text("utf-8").splitlines()) for path in results])
    page = DOCS / "performance.md"
    page.write_text(put_between(page.read_text("utf-8"), text(ROWS, shown)), "utf-8")
    runs = [run for name, session in shown.items() for run in session.runs if run.row == name]
    (DOCS / "performance.svg").write_text(draw(ROWS, runs), "utf-8")
