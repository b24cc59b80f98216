"""Add a package to the text of a spec, or take one out; every other line stays as it was written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.env.conda_spec import parse_conda
from labsync.env.lock import normal_name
from labsync.errors import InvalidError, NotFoundError, UsageError
from labsync.manifest.document import Issues, Mapping, Scalar, Sequence, read_document
from labsync.manifest.schema import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labsync.manifest.document import Node

_ITEM = re.compile(r"(\s*)- ")


@dataclass(frozen=True, slots=True)
class _Line:
    """A requirement in the spec: its name, and the number of its line from 1."""

    name: str
    number: int
    pip: bool


def requirement_name(text: str, *, pip: bool) -> str:
    """Return the name of what is asked for; UsageError (2) for something that is no requirement."""
    name = _pip_name(text) if pip else getattr(parse_conda(text), "name", "")
    if not name:
        raise UsageError(f"`{text}` is not a package", hint="write it like `numpy` or `numpy>=1.26,<3`")
    return name


def _pip_name(text: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return normal_name(Requirement(text).name)
    except InvalidRequirement:
        return ""


def with_package(text: str, requirement: str, *, pip: bool) -> str:
    """Return the spec's text with the requirement, in place of an older one of the same package.

    Raises InvalidError (3) for a spec that cannot be read or whose list is not written line by line.
    """
    name = requirement_name(requirement, pip=pip)
    lines = text.splitlines(keepends=True)
    found = _requirements(text)
    quoted = requirement if re.fullmatch(r"[A-Za-z0-9_.=-]+", requirement) else f'"{requirement}"'
    if old := next((one for one in found if one.name == name and one.pip == pip), None):
        match = _block_item(lines, old.number)
        lines[old.number - 1] = f"{match[1]}- {quoted}\n"
        return "".join(lines)
    same = [one for one in found if one.pip == pip]
    if not same and pip:
        return _with_pip_list(lines, found, quoted)
    if not same:
        raise InvalidError("the spec's `dependencies:` is empty", hint="write `- python=3.11` into it first")
    last = same[-1].number
    match = _block_item(lines, last)
    if not lines[last - 1].endswith("\n"):
        lines[last - 1] += "\n"
    lines.insert(last, f"{match[1]}- {quoted}\n")
    return "".join(lines)


def without_package(text: str, name: str) -> str:
    """Return the spec's text without the package of this name; NotFoundError (6) where it is not in it."""
    lines = text.splitlines(keepends=True)
    found = _requirements(text)
    wanted = {name.lower(), normal_name(name)}
    gone = [one for one in found if one.name in wanted]
    if not gone:
        known = did_you_mean(name, [one.name for one in found])
        raise NotFoundError(
            f"the spec asks for no package `{name}`{known}", hint="what it needs goes with it"
        )
    numbers = {one.number for one in gone}
    for number in numbers:
        _block_item(lines, number)
    if {one.number for one in found if one.pip} <= numbers:  # an empty `pip:` is not a spec
        numbers |= {number for number, line in enumerate(lines, 1) if re.match(r"\s*- pip:\s*(#.*)?$", line)}
    return "".join(line for number, line in enumerate(lines, 1) if number not in numbers)


def _with_pip_list(lines: list[str], found: list[_Line], quoted: str) -> str:
    last = max((one.number for one in found), default=0)
    match = _block_item(lines, last)
    if not lines[last - 1].endswith("\n"):
        lines[last - 1] += "\n"
    head = [] if any(one.name == "pip" for one in found) else [f"{match[1]}- pip\n"]
    lines[last:last] = [*head, f"{match[1]}- pip:\n", f"{match[1]}    - {quoted}\n"]
    return "".join(lines)


def _block_item(lines: list[str], number: int) -> re.Match[str]:
    match = _ITEM.match(lines[number - 1]) if number else None
    if match is None:
        raise InvalidError(
            "the spec's list is not written one package a line, so labsync does not edit it",
            hint="write `dependencies:` as lines that begin with `- `, or edit it and `labsync env lock`",
        )
    return match


def _requirements(text: str) -> list[_Line]:
    issues = Issues("the spec")
    root = read_document(text, issues)
    pair = root.by_key.get("dependencies") if isinstance(root, Mapping) else None
    if issues.found or pair is None:
        raise InvalidError("the spec cannot be read", issues=issues.in_order(), hint="repair it first")
    return list(_walk(pair.value, pip=False))


def _walk(node: Node, *, pip: bool) -> Iterator[_Line]:
    for item in node.items if isinstance(node, Sequence) else ():
        if isinstance(item, Mapping):
            for pair in item.pairs:
                yield from _walk(pair.value, pip=True)
        elif isinstance(item, Scalar) and not (pip and item.text.startswith("-")):
            yield _Line(requirement_name(item.text, pip=pip), item.line, pip)
