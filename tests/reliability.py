"""Writes the tables of `docs/reliability.md` from the tests: `python -m tests.reliability [--check]`.

A test says by `@pytest.mark.fault(17, 18)` which faults it injects; on a class it holds for all of its
tests. The files are parsed, not imported, so this takes a second.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.catalogue import ROWS, Row
from tests.mutations.catalogue import MUTATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"


def marked(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each fault that a test of the file is tied to, and the test's id."""
    tree = ast.parse(path.read_text("utf-8"))
    name = path.relative_to(TESTS.parent).as_posix()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            own = _numbers(node)
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    for number in {*own, *_numbers(inner)} if inner.name.startswith("test_") else ():
                        yield number, f"{name}::{node.name}::{inner.name}"
        elif isinstance(node, ast.FunctionDef):
            for number in _numbers(node):
                yield number, f"{name}::{node.name}"


def _numbers(node: ast.ClassDef | ast.FunctionDef) -> list[int]:
    """Return the arguments of the node's `pytest.mark.fault` decorators."""
    marks = [
        call
        for call in node.decorator_list
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "fault"
    ]
    return [ast.literal_eval(argument) for mark in marks for argument in mark.args]


def collect() -> dict[int, list[str]]:
    """Return the tests of each fault, sorted."""
    found: dict[int, set[str]] = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        for number, test in marked(path):
            found[number].add(test)
    # Contracts are inherited by tests and named otherwise.
    for path in TESTS.rglob("*_contract.py"):
        for number, test in marked(path):
            found[number].add(test)
    return {number: sorted(tests) for number, tests in found.items()}


def table(tests: dict[int, list[str]]) -> str:
    """Return the table as Markdown."""
    lines: list[str] = []
    for row in ROWS:
        if isinstance(row, str):
            lines += ["", f"### {row}", "", "| # | fault | labsync | exit | tests |", "|---|---|---|---|---|"]
        else:
            shown = _cell(row, tests.get(row.number, []))
            lines.append(f"| {row.number} | {row.fault} | {row.expected} | {row.codes} | {shown} |")
    return "\n".join([*lines[1:], ""])


def _cell(row: Row, tests: list[str]) -> str:
    shown = [f"`{test.removeprefix('tests/')}`" for test in tests]
    if row.untested:
        shown.append(f"Not here: {row.untested}")
    return "<br>".join(shown)


def gaps(tests: dict[int, list[str]]) -> list[int]:
    """Return the faults that have neither a test nor a reason."""
    return [
        row.number for row in ROWS if isinstance(row, Row) and not tests.get(row.number) and not row.untested
    ]


def mutations() -> str:
    """Return the table of the protections that are taken out."""
    lines = ["| id | without | in | noticed by |", "|---|---|---|---|"]
    for mutation in MUTATIONS:
        tests = "<br>".join(f"`{test.removeprefix('tests/')}`" for test in mutation.tests)
        lines.append(f"| {mutation.id} | {mutation.without} | `{mutation.file}` | {tests} |")
    return "\n".join([*lines, ""])


def written(page: str) -> str:
    """Return the page with its tables as they should be."""
    return _replaced(_replaced(page, "faults", table(collect())), "mutations", mutations())


def _replaced(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{text}{end}{after}"


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` say whether it is up to date."""
    page = PAGE.read_text("utf-8")
    now = written(page)
    if missing := gaps(collect()):
        print(f"neither a test nor a reason: {missing}", file=sys.stderr)  # noqa: T201
    if "--check" in arguments:
        return 0 if now == page and not missing else 1
    PAGE.write_text(now, "utf-8")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
