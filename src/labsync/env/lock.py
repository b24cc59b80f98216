"""The environment's lock: conda-lock's file format, version 1, which conda-lock and conda can read.

version: 1
metadata:
  content_hash: {linux-64: <digest of the spec>}
  channels: []
  platforms: [linux-64]
  sources: [mlgpu.yaml]
  custom_metadata: {python: '3.11'}
package:
- name: six
  version: '1.16.0'
  manager: pip
  platform: linux-64
  dependencies: {}
  url: https://…/six-1.16.0-py2.py3-none-any.whl
  hash: {sha256: <64 hex digits>}
  category: main
  optional: false
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import urlsplit

from labsync import atomic
from labsync.digest import is_sha256
from labsync.errors import InvalidError
from labsync.manifest.document import Issues, Mapping, Scalar, Sequence, read_document
from labsync.manifest.schema import Section

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from labsync.env.spec import EnvironmentFile

VERSION = "1"
PackageManager = Literal["conda", "pip"]
MANAGERS: tuple[PackageManager, ...] = get_args(PackageManager)
_TOP = ("version", "metadata", "package")
_METADATA = (
    "content_hash", "channels", "platforms", "sources", "time_metadata", "git_metadata",
    "inputs_metadata", "custom_metadata",
)  # fmt: skip
_PACKAGE = (
    "name", "version", "manager", "platform", "dependencies", "url", "hash", "source", "build",
    "category", "categories", "optional",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9._!+-]+")
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./:+@%=~-]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}  # what YAML 1.1 makes of them


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One package: exactly which file, where it lies, and its digest."""

    name: str
    version: str
    url: str
    sha256: str
    manager: PackageManager = "pip"
    dependencies: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EnvironmentLock:
    """The packages for one platform, by name; `python` is the version they are for, if it is known."""

    platform: str
    content_hash: str
    packages: tuple[LockedPackage, ...]
    python: str = ""
    sources: tuple[str, ...] = ()


def current_platform() -> str:
    """Return conda's name of this machine's platform."""
    system, machine = platform.system(), platform.machine().lower()
    names = {
        ("Linux", "x86_64"): "linux-64",
        ("Darwin", "arm64"): "osx-arm64",
        ("Darwin", "x86_64"): "osx-64",
    }
    return names.get((system, machine), f"{system.lower()}-{machine}")


def normal_name(name: str) -> str:
    """Return the one form of a package's name (https://peps.python.org/pep-0503/#normalized-names)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check_lock(spec: EnvironmentFile, lock: EnvironmentLock) -> str | None:
    """Return why the lock is stale, None when it belongs to the spec as it is now."""
    if lock.content_hash == spec.content_hash:
        return None
    return f"`{spec.path}` was changed since the environment was locked"


def read_env_lock(path: Path, target: str | None = None) -> EnvironmentLock:
    """Read a lock's packages for `target`, this machine's platform unless told; InvalidError (3).

    Only category `main` counts: conda-lock keeps the packages of development in the same file.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        raise InvalidError(
            f"the environment's lock `{path}` does not exist",
            path=str(path),
            hint="`labsync env lock` makes it",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(
            f"the environment's lock `{path}` cannot be read: {error}", path=str(path)
        ) from error
    return parse_env_lock(text, str(path), target or current_platform())


def parse_env_lock(text: str, name: str, target: str) -> EnvironmentLock:
    """Return the lock of the text; InvalidError (3) with all problems, reported under `name`."""
    issues = Issues(name)
    root = read_document(text, issues)
    lock = EnvironmentLock(target, "", ())
    if isinstance(root, Mapping):
        lock = _read(Section(root, "", issues), target)
    elif not issues.found:
        issues.add(1, "must be a mapping with the keys `version`, `metadata` and `package`")
    if issues.found:
        raise InvalidError(
            f"the environment's lock `{name}` has {len(issues.found)} problem(s)",
            issues=issues.in_order(),
            path=name,
            hint="`labsync env lock` writes it anew",
        )
    return lock


def _read(top: Section, target: str) -> EnvironmentLock:
    version = top.find("version")
    if not (isinstance(version, Scalar) and version.text == VERSION):
        top.report("version", f"must be {VERSION}: another version is not understood by this labsync")
        return EnvironmentLock(target, "", ())
    top.check_keys(_TOP)
    content_hash = python = ""
    sources: tuple[str, ...] = ()
    if metadata := top.section("metadata"):
        metadata.check_keys(_METADATA)
        sources = metadata.texts("sources")
        content_hash = _entry(metadata, "content_hash", target)
        python = _entry(metadata, "custom_metadata", "python")
        if target not in metadata.texts("platforms"):
            metadata.report("platforms", f"this machine's platform `{target}` is not locked")
    rows = top.find("package")
    if not isinstance(rows, Sequence):
        top.report("package", "must be a list")
        return EnvironmentLock(target, content_hash, ())
    packages = tuple(_packages(rows, target, top.issues))
    return EnvironmentLock(target, content_hash, packages, python, sources)


def _entry(section: Section, key: str, name: str) -> str:
    inner = section.section(key) if section.find(key) else None
    return inner.text(name) if inner else ""


def _packages(rows: Sequence, target: str, issues: Issues) -> Iterator[LockedPackage]:
    seen: set[tuple[str, str]] = set()
    for number, row in enumerate(rows.items):
        where = f"package[{number}]"
        if not isinstance(row, Mapping):
            issues.add(row.line, f"{where}: must be a mapping of keys")
            continue
        section = Section(row, where, issues)
        section.check_keys(_PACKAGE)
        package = _package(section)
        if package is None or section.text("platform") != target or not _is_main(section):
            continue
        if (key := (package.manager, normal_name(package.name))) in seen:
            section.report("name", f"`{package.name}` is locked twice")
        seen.add(key)
        yield package


def _package(row: Section) -> LockedPackage | None:
    before = len(row.issues.found)
    name, version, url = row.text("name"), row.text("version"), row.text("url")
    manager = row.choice("manager", MANAGERS, "pip")
    hashes = row.section("hash")
    sha256 = hashes.text("sha256") if hashes else ""
    if not is_sha256(sha256):
        row.report("hash", "the package has no `sha256`, so its bytes cannot be checked")
    for key, text, pattern in (("name", name, _NAME), ("version", version, _VERSION)):
        if not pattern.fullmatch(text):
            row.report(key, f"`{text}` is not a package's {key}")
    if problem := _url_problem(url, manager):
        row.report("url", problem)
    if not row.text("platform"):
        row.report("platform", "is missing")
    if len(row.issues.found) > before:
        return None
    return LockedPackage(name, version, url, sha256, manager, _dependencies(row))


def _url_problem(url: str, manager: str) -> str | None:
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http", "file"} or re.search(r"\s", url):
        return f"`{url}` is not a URL of a file"
    if manager == "pip" and not parts.path.endswith(".whl"):
        return "is not a wheel: building it would run its code, and its result has no digest"
    return None


def _dependencies(row: Section) -> tuple[tuple[str, str], ...]:
    node = row.find("dependencies")
    if not isinstance(node, Mapping):
        return ()
    return tuple((pair.key, pair.value.text if isinstance(pair.value, Scalar) else "") for pair in node.pairs)


def _is_main(row: Section) -> bool:
    named = (*row.texts("categories"), row.text("category") if row.find("category") else "")
    return "main" in named or not any(named)


def write_env_lock(path: Path, lock: EnvironmentLock) -> None:
    """Write the lock in conda-lock's shape; the same lock gives the same bytes."""
    atomic.write_bytes(path, format_env_lock(lock).encode())


def format_env_lock(lock: EnvironmentLock) -> str:
    """Return the lock as the text of its file."""
    lines = [
        "# Made by `labsync env lock`, in the format of conda-lock.",
        f"version: {VERSION}",
        "metadata:",
        "  content_hash:",
        f"    {lock.platform}: {_quote(lock.content_hash)}",
        "  channels: []",
        "  platforms:",
        f"  - {lock.platform}",
        *_list("  sources", lock.sources),
        *_map("  custom_metadata", [("python", lock.python)] if lock.python else []),
        "package:" if lock.packages else "package: []",
    ]
    for package in sorted(lock.packages, key=lambda one: (one.manager, normal_name(one.name))):
        lines += _row(package, lock.platform)
    return "\n".join(lines) + "\n"


def _row(package: LockedPackage, target: str) -> list[str]:
    return [
        f"- name: {_quote(package.name)}",
        f"  version: {_quote(package.version)}",
        f"  manager: {package.manager}",
        f"  platform: {target}",
        *_map("  dependencies", package.dependencies),
        f"  url: {_quote(package.url)}",
        "  hash:",
        f"    sha256: {_quote(package.sha256)}",
        "  category: main",
        "  optional: false",
    ]


def _map(key: str, pairs: Iterable[tuple[str, str]]) -> list[str]:
    lines = [f"    {_quote(name)}: {_quote(value)}" for name, value in pairs]
    return [f"{key}:", *lines] if lines else [f"{key}: {{}}"]


def _list(key: str, items: Iterable[str]) -> list[str]:
    lines = [f"  - {_quote(item)}" for item in items]
    return [f"{key}:", *lines] if lines else [f"{key}: []"]


def _quote(text: str) -> str:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not text.endswith(":")
    return text if plain else "'" + text.replace("'", "''") + "'"
