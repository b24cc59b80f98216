"""The environment's spec: a conda `environment.yml`, of which manager venv installs what is pip's.

name: mlgpu
channels: [conda-forge]
target: {cuda: '12.4', glibc: '2.28'}     # the machine it is for; conda and conda-lock pass over this key
pip-repositories: [https://download.pytorch.org/whl/cu124]
dependencies:
  - python=3.11
  - ffmpeg
  - pip
  - pip:
    - transformers>=5.18
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from labsync.digest import sha256_bytes
from labsync.env.conda_spec import CondaRequirement, parse_conda
from labsync.env.content_hash import content_hash
from labsync.errors import InvalidError, NotFoundError
from labsync.manifest.document import Hole, Issues, Mapping, Node, Scalar, Sequence, read_document
from labsync.manifest.schema import Section

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.manifest.model import Manager

_HINTS = {
    "venv": "manager `venv` takes `python` and what stands under `pip:`",
    "conda": "it is a conda `environment.yml`; `labsync init --template vision` writes one to begin with",
}
_KEYS = ("name", "channels", "pip-repositories", "dependencies", "platforms", "target")
_TARGET = re.compile(r"(?:__)?[a-z][a-z0-9_-]*")
_TARGET_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_PYTHON = re.compile(r"python(?![\w.-])\s*(.*)")
_PIP = re.compile(r"pip(?![\w.-]).*")
_INDEX = re.compile(r"--extra-index-url[= ]\s*(\S+)")
_REQUIREMENT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\s*\[[^\]]*\])?\s*(?:[<>=!~;(].*)?")
_CLAUSE = re.compile(r"(==|=|>=|<=|!=|>|<|)\s*([0-9]+(?:\.[0-9]+)*)(\.\*)?")


@dataclass(frozen=True, slots=True)
class EnvironmentFile:
    """A spec as it was read for a manager.

    `python` is its constraint, `requirements` are pip's, `indexes` more indexes of packages for them;
    `channels`, `packages` and `target` (virtual packages by name) are what manager conda goes by.
    """

    path: str
    manager: Manager = "venv"
    python: str = ""
    requirements: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    packages: tuple[CondaRequirement, ...] = ()
    target: tuple[tuple[str, str], ...] = ()
    has_pip: bool = False

    def content_hash(self, platform: str) -> str:
        """Return the digest of what decides the lock; for manager conda it is conda-lock's own."""
        if self.manager == "conda":
            return content_hash(self, platform)
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


def read_spec(path: Path, manager: Manager = "venv") -> EnvironmentFile:
    """Read a spec for a manager; NotFoundError (6), or InvalidError (3) with all its problems."""
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
    return parse_spec(text, str(path), manager)


def parse_spec(text: str, name: str, manager: Manager = "venv") -> EnvironmentFile:
    """Return the spec of the text; `name` is what problems are reported under."""
    issues = Issues(name)
    root = read_document(text, issues)
    spec = EnvironmentFile(name, manager)
    if isinstance(root, Mapping):
        spec = _read(Section(root, "", issues), spec)
    elif not issues.found:
        issues.add(1, "must be a mapping with the key `dependencies`")
    if issues.found:
        raise InvalidError(
            f"the environment's spec `{name}` has {len(issues.found)} problem(s)",
            issues=issues.in_order(),
            path=name,
            hint=_HINTS[manager],
        )
    return spec


def _read(top: Section, spec: EnvironmentFile) -> EnvironmentFile:
    top.check_keys(_KEYS)
    top.text("name")
    top.texts("platforms")
    found = _Found(list(top.texts("pip-repositories")))
    node = top.find("dependencies")
    if not isinstance(node, Sequence):
        top.report("dependencies", "must be a list, with `python` and `pip:`")
        return spec
    for item in node.items:
        if isinstance(item, Mapping):
            found.has_pip = True
            found.requirements += _pip_lines(Section(item, "dependencies", top.issues), found.indexes)
        elif not isinstance(item, Hole):
            _line(item, found, top, spec.manager)
    for index in found.indexes:
        if urlsplit(index).scheme not in {"https", "http", "file"}:
            top.report("pip-repositories", f"`{index}` is not a URL")
    channels = tuple(one for one in top.texts("channels") if one != "nodefaults")
    if spec.manager == "conda":
        _check_conda(top, channels, found)
    return replace(
        spec,
        python=found.python,
        requirements=tuple(found.requirements),
        indexes=tuple(found.indexes),
        channels=channels,
        packages=tuple(found.packages),
        target=_target(top.section("target", may_be_empty=True)),
        has_pip=found.has_pip,
    )


@dataclass
class _Found:
    """What the lines under `dependencies:` ask for, gathered line by line."""

    indexes: list[str]
    python: str = ""
    requirements: list[str] = field(default_factory=list)
    packages: list[CondaRequirement] = field(default_factory=list)
    has_pip: bool = False


def _line(item: Node, found: _Found, top: Section, manager: Manager) -> None:
    if manager == "venv":
        found.python = _conda_line(item, found.python, top)
        return
    text = item.text.strip() if isinstance(item, Scalar) and item.type == "string" else ""
    package = parse_conda(text)
    if package is None:
        shown = f"`{text}` is" if text else "this entry is"
        top.issues.add(item.line, f"dependencies: {shown} not understood, write it like `numpy>=1.26,<3`")
        return
    found.packages.append(package)
    if package.name == "python":
        found.python = package.version


def _check_conda(top: Section, channels: tuple[str, ...], found: _Found) -> None:
    if not channels:
        top.report("channels", "names no channel, as in `channels: [conda-forge]`")
    if not any(package.name == "python" for package in found.packages):
        top.report("dependencies", "asks for no `python`, as in `python=3.11`")


def _target(section: Section | None) -> tuple[tuple[str, str], ...]:
    pairs = []
    for key in section.written if section else ():
        assert section is not None
        node = section.find(key)
        version = node.text if isinstance(node, Scalar) else ""
        if not _TARGET.fullmatch(key):
            section.report(key, "is not a virtual package, as in `cuda` or `glibc`")
        elif not _TARGET_VERSION.fullmatch(version):
            section.report(key, f"`{version}` is not a version, as in `'12.4'`")
        else:
            pairs.append((f"__{key.lstrip('_')}", version))
    return tuple(pairs)


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
