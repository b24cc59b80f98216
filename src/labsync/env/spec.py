"""The environment's spec: a conda `environment.yml` of which manager venv can install all.

name: mlgpu
channels: [conda-forge]          # nothing comes from them here
pip-repositories: [https://download.pytorch.org/whl/cu121]
dependencies:
  - python=3.11
  - pip
  - pip:
    - transformers>=5.18
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from labsync.digest import sha256_bytes
from labsync.errors import InvalidError, NotFoundError
from labsync.manifest.document import Hole, Issues, Mapping, Node, Scalar, Sequence, read_document
from labsync.manifest.schema import Section

if TYPE_CHECKING:
    from pathlib import Path

_KEYS = ("name", "channels", "pip-repositories", "dependencies")
_PYTHON = re.compile(r"python(?![\w.-])\s*(.*)")
_PIP = re.compile(r"pip(?![\w.-]).*")
_INDEX = re.compile(r"--extra-index-url[= ]\s*(\S+)")
_REQUIREMENT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\s*\[[^\]]*\])?\s*(?:[<>=!~;(].*)?")
_CLAUSE = re.compile(r"(==|=|>=|<=|!=|>|<|)\s*([0-9]+(?:\.[0-9]+)*)(\.\*)?")


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """A spec as it was read: the Python it asks for, pip's requirements, more package indexes."""

    path: str
    python: str = ""
    requirements: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()

    @property
    def content_hash(self) -> str:
        """The digest of what decides the lock; comments, order and channels do not."""
        asked = {
            "indexes": self.indexes,
            "pip": sorted("".join(line.split()) for line in self.requirements),
            "python": "".join(self.python.split()),
        }
        return sha256_bytes(json.dumps(asked, sort_keys=True).encode())

    def allows_python(self, version: str) -> bool:
        """Say whether the spec's `python` requirement admits a version such as `3.11.7`."""
        clauses = filter(None, re.split(r"[,\s]+(?=[<>=!0-9])", self.python))
        return all(_admits(clause, version) for clause in clauses)


def read_spec(path: Path) -> EnvironmentFile:
    """Read a spec for manager venv; NotFoundError (6), or InvalidError (3) with all its problems."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(
            f"the environment's spec `{path}` does not exist",
            path=str(path),
            hint="write it, or take `spec:` out of the manifest's `environment:`",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(
            f"the environment's spec `{path}` cannot be read: {error}", path=str(path)
        ) from error
    return parse_spec(text, str(path))


def parse_spec(text: str, name: str) -> EnvironmentFile:
    """Return the spec of the text; `name` is what problems are reported under."""
    issues = Issues(name)
    root = read_document(text, issues)
    spec = EnvironmentFile(name)
    if isinstance(root, Mapping):
        spec = _read(Section(root, "", issues), name)
    elif not issues.found:
        issues.add(1, "must be a mapping with the key `dependencies`")
    if issues.found:
        raise InvalidError(
            f"the environment's spec `{name}` has {len(issues.found)} problem(s)",
            issues=issues.in_order(),
            path=name,
            hint="manager `venv` takes `python` and what stands under `pip:`",
        )
    return spec


def _read(top: Section, name: str) -> EnvironmentFile:
    top.check_keys(_KEYS)
    top.text("name")
    top.texts("channels")
    indexes = list(top.texts("pip-repositories"))
    python, requirements = "", []
    node = top.find("dependencies")
    if not isinstance(node, Sequence):
        top.report("dependencies", "must be a list, with `python` and `pip:`")
        return EnvironmentFile(name)
    for item in node.items:
        if isinstance(item, Mapping):
            requirements += _pip_lines(Section(item, "dependencies", top.issues), indexes)
        elif not isinstance(item, Hole):
            python = _conda_line(item, python, top)
    for index in indexes:
        if urlsplit(index).scheme not in {"https", "http", "file"}:
            top.report("pip-repositories", f"`{index}` is not a URL")
    return EnvironmentFile(name, python, tuple(requirements), tuple(indexes))


def _conda_line(item: Node, python: str, top: Section) -> str:
    text = item.text.strip() if isinstance(item, Scalar) and item.type == "string" else ""
    if match := _PYTHON.fullmatch(text):
        constraint = match[1].strip()
        if constraint and not all(map(_CLAUSE.fullmatch, re.split(r"[,\s]+(?=[<>=!0-9])", constraint))):
            top.issues.add(
                item.line, f"dependencies: `{text}` is not understood, write it like `python=3.11`"
            )
        return constraint
    if not _PIP.fullmatch(text):
        shown = f"`{text}`" if text else "this entry"
        top.issues.add(
            item.line,
            f"dependencies: {shown} is conda's, which manager `venv` does not install; put it under `pip:`",
        )
    return python


def _pip_lines(section: Section, indexes: list[str]) -> list[str]:
    section.check_keys(("pip",))
    lines = []
    for line in section.texts("pip"):
        if match := _INDEX.fullmatch(line.strip()):
            indexes.append(match[1])
        elif _REQUIREMENT.fullmatch(line.strip()):
            lines.append(line.strip())
        else:
            section.report(
                "pip",
                f"`{line}` is not a plain requirement like `six>=1.16`; git libraries go under `libraries:`",
            )
    return lines


def _admits(clause: str, version: str) -> bool:
    match = _CLAUSE.fullmatch(clause)
    assert match is not None  # parse_spec let nothing else through
    operator, wanted, have = match[1], _numbers(match[2]), _numbers(version)
    begins = have[: len(wanted)] == wanted
    if operator in {"", "="} or (match[3] and operator == "=="):
        return begins
    if match[3] and operator == "!=":
        return not begins
    width = max(len(have), len(wanted))
    have, wanted = (numbers + (0,) * (width - len(numbers)) for numbers in (have, wanted))
    return {
        "==": have == wanted,
        "!=": have != wanted,
        ">=": have >= wanted,
        "<=": have <= wanted,
        ">": have > wanted,
        "<": have < wanted,
    }[operator]


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
