"""The lock as text: conda-lock's own shape, and the same lock gives the same bytes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.env.lock import VERSION, EnvironmentLock, LockedPackage, normal_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./:+@%=~-]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}  # what YAML 1.1 makes of them


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
        *_channels(lock.channels),
        "  platforms:",
        f"  - {lock.platform}",
        *_list("  sources", lock.sources),
        *_map("  custom_metadata", _custom(lock)),
        "package:" if lock.packages else "package: []",
    ]
    for package in sorted(lock.packages, key=lambda one: (one.manager, normal_name(one.name))):
        lines += _row(package, lock.platform)
    return "\n".join(lines) + "\n"


def _channels(channels: Iterable[str]) -> list[str]:
    lines = [line for url in channels for line in (f"  - url: {_quote(url)}", "    used_env_vars: []")]
    return ["  channels:", *lines] if lines else ["  channels: []"]


def _custom(lock: EnvironmentLock) -> list[tuple[str, str]]:
    sizes = sorted((package.file_name, str(package.size)) for package in lock.packages if package.size)
    return [*([("python", lock.python)] if lock.python else []), *lock.target, *dict(sizes).items()]


def _row(package: LockedPackage, target: str) -> list[str]:
    return [
        f"- name: {_quote(package.name)}",
        f"  version: {_quote(package.version)}",
        f"  manager: {package.manager}",
        f"  platform: {target}",
        *_map("  dependencies", package.dependencies),
        f"  url: {_quote(package.url)}",
        "  hash:",
        *([f"    md5: {_quote(package.md5)}"] if package.md5 else []),
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
