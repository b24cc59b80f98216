"""The environment's lock: conda-lock's file format, version 1, which conda-lock and conda can read.

version: 1
metadata:
  content_hash: {linux-64: <digest of the spec>}
  channels: [{url: conda-forge, used_env_vars: []}]
  platforms: [linux-64]
  sources: [mlgpu.yaml]
  custom_metadata: {python: '3.11', __glibc: '2.28', six-1.16.0-py2.py3-none-any.whl: '11053'}
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

In `custom_metadata` are the Python it is for, the virtual packages of the machine it is for, and the size of
each file, for which the format has no place of its own.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import unquote, urlsplit

from labsync.digest import is_sha256
from labsync.errors import InvalidError
from labsync.manifest.document import Issues, Mapping, Scalar, Sequence, read_document
from labsync.manifest.schema import Section

if TYPE_CHECKING:
    from collections.abc import Iterator
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
_NAME = re.compile(r"_?[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")  # conda has names such as `_libgcc_mutex`
_MD5 = re.compile(r"[0-9a-f]{32}")
_VERSION = re.compile(r"[A-Za-z0-9._!+-]+")


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One package: exactly which file, where it lies, its digest, and its size where it is known (else 0)."""

    name: str
    version: str
    url: str
    sha256: str
    manager: PackageManager = "pip"
    dependencies: tuple[tuple[str, str], ...] = ()
    md5: str = ""
    size: int = 0

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])


@dataclass(frozen=True, slots=True)
class EnvironmentLock:
    """The packages for one platform, by name; `python` is the version they are for, if it is known.

    `target` are the virtual packages of the machine that they were chosen for, such as `__cuda`.
    """

    platform: str
    content_hash: str
    packages: tuple[LockedPackage, ...]
    python: str = ""
    sources: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    target: tuple[tuple[str, str], ...] = ()

    def of(self, manager: PackageManager) -> tuple[LockedPackage, ...]:
        """Return the packages that this manager installs."""
        return tuple(package for package in self.packages if package.manager == manager)


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
    if lock.content_hash == spec.content_hash(lock.platform):
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
    lock = EnvironmentLock(target, "", ())
    sizes: dict[str, str] = {}
    if metadata := top.section("metadata"):
        metadata.check_keys(_METADATA)
        if target not in metadata.texts("platforms"):
            metadata.report("platforms", f"this machine's platform `{target}` is not locked")
        sizes = _entries(metadata, "custom_metadata")
        lock = replace(
            lock,
            content_hash=_entries(metadata, "content_hash").get(target, ""),
            sources=metadata.texts("sources"),
            channels=tuple(_channels(metadata)),
            python=sizes.pop("python", ""),
            target=tuple((name, sizes.pop(name)) for name in [*sizes] if name.startswith("__")),
        )
    rows = top.find("package")
    if not isinstance(rows, Sequence):
        top.report("package", "must be a list")
        return lock
    return replace(lock, packages=tuple(_packages(rows, target, sizes, top.issues)))


def _entries(section: Section, key: str) -> dict[str, str]:
    node = section.find(key)
    if not isinstance(node, Mapping):
        return {}
    return {pair.key: pair.value.text for pair in node.pairs if isinstance(pair.value, Scalar)}


def _channels(metadata: Section) -> Iterator[str]:
    node = metadata.find("channels")
    for item in node.items if isinstance(node, Sequence) else ():
        if isinstance(item, Mapping):
            yield Section(item, "metadata.channels", metadata.issues).text("url")
        elif isinstance(item, Scalar):
            yield item.text


def _packages(rows: Sequence, target: str, sizes: dict[str, str], issues: Issues) -> Iterator[LockedPackage]:
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
        # conda has packages whose names only differ in `-` and `_`
        name = normal_name(package.name) if package.manager == "pip" else package.name
        if (key := (package.manager, name)) in seen:
            section.report("name", f"`{package.name}` is locked twice")
        seen.add(key)
        size = sizes.get(package.file_name, "")
        yield replace(package, size=int(size) if size.isascii() and size.isdigit() else 0)


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
    md5 = hashes.text("md5") if hashes and hashes.find("md5") else ""
    if manager == "conda" and not _MD5.fullmatch(md5):
        row.report("hash", "a package of conda needs an `md5` too, as conda-lock has it")
    if len(row.issues.found) > before:
        return None
    return LockedPackage(
        name, version, url, sha256, manager, tuple(_entries(row, "dependencies").items()), md5
    )


def _url_problem(url: str, manager: str) -> str | None:
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http", "file"} or re.search(r"\s", url):
        return f"`{url}` is not a URL of a file"
    if manager == "pip" and not parts.path.endswith(".whl"):
        return "is not a wheel: building it would run its code, and its result has no digest"
    if manager == "conda" and not parts.path.endswith((".conda", ".tar.bz2")):
        return "is not a package of conda"
    return None


def _is_main(row: Section) -> bool:
    named = (*row.texts("categories"), row.text("category") if row.find("category") else "")
    return "main" in named or not any(named)
