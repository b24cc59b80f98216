"""From runs to words: paired ratios, medians, verdicts, tables. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.goals import Goal, Row

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one contender; `failed` says why it does not count.

    `requests` to the mirror and bytes `moved` are what the contender itself says, `resent` the bytes that
    travelled twice as the relay saw it, `unread` those of them that the kernel had taken for a killed
    client, which had not read them; None where nobody says.
    """

    row: str
    contender: str
    round: int
    wall: float
    cpu: float
    rss: int
    failed: str = ""
    requests: int | None = None
    moved: int | None = None
    resent: int | None = None
    unread: int | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and how far its values lie apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the spread of at least one value."""
        found = sorted(values)
        return cls(median(found), found[0], found[-1])


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a goal was reached; `value` is what is compared, None when runs are missing or failed."""

    row: Row
    goal: Goal
    value: Spread | None
    rival: str = ""

    @property
    def measured(self) -> float | None:
        """The one number that counts: the median of times and ratios, the most of everything else."""
        if self.value is None:
            return None
        return self.value.median if self.goal.measure == "wall" else self.value.high

    @property
    def met(self) -> bool:
        """Whether it is at or below the limit."""
        return self.measured is not None and self.measured <= self.goal.limit


def good(runs: Iterable[Run], row: str) -> dict[str, list[Run]]:
    """Return the runs of a row that count, by contender."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        if run.row == row and not run.failed:
            found.setdefault(run.contender, []).append(run)
    return found


def contenders(runs: Iterable[Run], row: str) -> list[str]:
    """Return who took part in a row, failed or not, in the order of their first runs."""
    return list(dict.fromkeys(run.contender for run in runs if run.row == row))


def is_peer(row: Row, contender: str) -> bool:
    """Say whether a contender counts when the best peer is looked for."""
    return not contender.startswith("labsync") and contender not in row.beside


def paired(row: Row, runs: Sequence[Run], goal: Goal) -> Verdict:
    """Return the ratios of a goal, each of two runs of the same round."""
    rounds: dict[int, dict[str, float]] = {}
    for name, found in good(runs, row.name).items():
        for run in found:
            rounds.setdefault(run.round, {})[name] = run.wall
    ratios = []
    wins: list[str] = []
    for walls in rounds.values():
        rival = _rival(row, goal, walls)
        if rival and goal.subject in walls:
            ratios.append(walls[goal.subject] / walls[rival])
            wins.append(rival)
    if not ratios:
        return Verdict(row, goal, None)
    return Verdict(row, goal, Spread.of(ratios), max(dict.fromkeys(wins), key=wins.count))


def _rival(row: Row, goal: Goal, walls: dict[str, float]) -> str:
    if goal.against != "best":
        return goal.against if goal.against in walls else ""
    peers = [name for name in walls if is_peer(row, name)]
    return min(peers, key=lambda name: walls[name]) if peers else ""


def absolute(row: Row, runs: Sequence[Run], goal: Goal) -> Verdict:
    """Return the amounts of a goal that has no rival."""
    amounts: dict[str, Callable[[Run], float | None]] = {
        "wall": lambda run: run.wall,
        "rss": lambda run: run.rss,
        "requests": lambda run: run.requests,
        "resent": lambda run: run.resent,
    }
    values = [amounts[goal.measure](run) for run in good(runs, row.name).get(goal.subject, [])]
    known = [value for value in values if value is not None]
    return Verdict(row, goal, Spread.of(known) if known else None)


def verdicts(rows: Sequence[Row], runs: Sequence[Run]) -> list[Verdict]:
    """Return a verdict for each goal of the rows that were run."""
    ran = {run.row for run in runs}
    return [
        (paired if goal.against else absolute)(row, runs, goal)
        for row in rows
        if row.name in ran
        for goal in row.goals
    ]


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; cells are taken as they are."""
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def goals_table(found: Iterable[Verdict]) -> str:
    """Return the table of goals and what came of them."""
    head = ("work", "measured", "median (lowest – highest)", "goal", "met")
    return table(head, (_goal_line(verdict) for verdict in found))


def _goal_line(verdict: Verdict) -> tuple[str, ...]:
    goal = verdict.goal
    if goal.against:
        what = f"{goal.subject} ÷ {verdict.rival or goal.against}"
        show: Callable[[float], str] = "{:.2f}".format
    else:
        what, show = f"{goal.subject}, {_WHAT[goal.measure]}", _SHOW[goal.measure]
    value = verdict.value
    told = f"{show(value.median)} ({show(value.low)} – {show(value.high)})" if value else "no result"
    return verdict.row.title, what, told, f"≤ {show(goal.limit)}", "yes" if verdict.met else "**no**"


def _mib(value: float) -> str:
    return f"{value / MIB:,.0f} MiB" if value >= 10 * MIB else f"{value / MIB:.1f} MiB"


_WHAT = {"wall": "seconds", "rss": "peak memory", "requests": "requests", "resent": "bytes sent twice"}
_SHOW: dict[str, Callable[[float], str]] = {
    "wall": "{:.2f} s".format,
    "rss": _mib,
    "requests": "{:.0f}".format,
    "resent": _mib,
}


def row_table(row: Row, runs: Sequence[Run]) -> str:
    """Return the table of one row: what each contender's runs cost, and labsync's time as a part of it."""
    mine = good(runs, row.name)
    if any(run.resent is not None for found in mine.values() for run in found):
        twice = "sent twice: median (lowest – highest)"
        head: Sequence[str] = ("who", "kills", twice, "of these not yet read by the client")
        tell = _kill_cells
    else:
        subject = row.goals[0].subject
        head = (
            "who",
            "seconds: median (lowest – highest)",
            "CPU seconds",
            "peak memory",
            "requests",
            f"{subject} ÷ it",
        )
        tell = _cost_cells
    lines = []
    for name in contenders(runs, row.name):
        label = f"{name} (beside)" if name in row.beside else name
        found = mine.get(name)
        cells = tell(row, runs, name, found) if found else [f"failed: {_why(row, runs, name)}"]
        lines.append([label, *cells, *[""] * (len(head) - 1 - len(cells))])
    return table(head, lines)


def _cost_cells(row: Row, runs: Sequence[Run], name: str, found: Sequence[Run]) -> list[str]:
    requests = [run.requests for run in found if run.requests is not None]
    return [
        _spread([run.wall for run in found], "{:.2f}".format),
        f"{median(run.cpu for run in found):.2f}",
        _mib(max(run.rss for run in found)),
        str(max(requests)) if requests else "",
        "" if name.startswith("labsync") else _ratio(row, runs, name),
    ]


def _kill_cells(row: Row, runs: Sequence[Run], name: str, found: Sequence[Run]) -> list[str]:  # noqa: ARG001
    resent = [run.resent for run in found if run.resent is not None]
    unread = [run.unread or 0 for run in found]
    return [str(len(found)), _spread(resent, _mib) if resent else "", _spread(unread, _mib)]


def _spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    value = Spread.of(values)
    return f"{show(value.median)} ({show(value.low)} – {show(value.high)})"


def _why(row: Row, runs: Sequence[Run], name: str) -> str:
    text = next(run.failed for run in runs if run.row == row.name and run.contender == name)
    return " ".join(text.replace("|", "/").split())[:160]


def _ratio(row: Row, runs: Sequence[Run], name: str) -> str:
    value = paired(row, runs, replace(row.goals[0], limit=0, against=name)).value
    return f"{value.median:.2f} ({value.low:.2f} – {value.high:.2f})" if value else ""
