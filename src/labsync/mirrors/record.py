"""One JSON object of the mirror's records, read strictly: every key is known, every value has its type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias

from labsync.digest import is_sha256
from labsync.errors import InvalidError
from labsync.mirrors.base import Located
from labsync.names import MIRRORED, NAME, ArtifactName, path_problem
from labsync.snapshot import FileEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

Value: TypeAlias = "str | int | bool | float | list[object] | dict[str, object] | None"
Object: TypeAlias = "dict[str, Value]"

VERSION = 1
MAX_HEAD = 1 << 16


class NewerVersionError(InvalidError):
    """The record was written by a newer labsync: it is whole, and this labsync must leave it alone."""


def line_of(fields: Object) -> bytes:
    """Return the object as a record stores it."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class Record:
    """One JSON object of a record, read strictly; `where` begins every complaint."""

    def __init__(self, line: bytes, where: str, limit: int = MAX_HEAD) -> None:
        self._where = where
        if len(line) > limit:
            raise self.error("is too long")
        try:
            value = json.loads(line, object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise self.error("is not JSON") from error
        if not isinstance(value, dict):
            raise self.error("is not an object")
        self._fields: Object = value

    def error(self, problem: str) -> InvalidError:
        """Return the error that this record is wrong."""
        return InvalidError(f"{self._where} {problem}", hint="it was not written by this version of labsync")

    def check(self, required: Sequence[str], optional: Sequence[str] = ()) -> None:
        """Refuse a newer version before anything else, then unknown and missing keys."""
        version = self._fields.get("version", None if "version" in required else VERSION)
        if "version" in required and type(version) is int and version > VERSION:
            raise NewerVersionError(
                f"{self._where} has version {version}, and this labsync knows {VERSION}",
                hint="`pip install --upgrade labsync`",
            )
        if unknown := sorted(self._fields.keys() - {*required, *optional}):
            raise self.error(f"has an unknown key `{unknown[0][:80]!r}`")
        if missing := sorted(set(required) - self._fields.keys()):
            raise self.error(f"lacks the key `{missing[0]}`")
        if type(version) is not int or version != VERSION:
            raise self.error(f"has the version {version!r}")

    def text(self, key: str) -> str:
        """Return a short printable string."""
        value = self._fields[key]
        if not isinstance(value, str) or len(value) > 255 or not value.isprintable():
            raise self.error(f"has a wrong `{key}`")
        return value

    def digest(self, key: str, *, empty: bool = False) -> str:
        """Return 64 hex digits; with `empty` also none."""
        value = self._fields[key]
        if not isinstance(value, str) or not (is_sha256(value) or (empty and not value)):
            raise self.error(f"has a wrong `{key}`: it is not a SHA-256")
        return value

    def artifact(self) -> ArtifactName:
        """Return `kind/name`."""
        kind, _, name = self.text("artifact").partition("/")
        if kind not in MIRRORED or NAME.fullmatch(name) is None:
            raise self.error("has a wrong `artifact`")
        return ArtifactName(f"{kind}/{name}")

    def located(self) -> Located:
        """Return the file of an index line; its path is checked by the snapshot, its key here."""
        entry = FileEntry(self._name("path"), self.digest("sha256"), self._count("size"), self._executable())
        return Located(entry, self._name("key"), self._count("offset") if "offset" in self._fields else None)

    def packs(self) -> dict[str, int]:
        """Return the sizes of packs by key; none where there is no such key."""
        value = self._fields.get("packs", {})
        if not isinstance(value, dict) or ("packs" in self._fields and not value):
            raise self.error("has a wrong `packs`: it is an object that names a pack, or absent")
        return {self._checked("packs", key): self._bytes("packs", size) for key, size in value.items()}

    def _name(self, key: str) -> str:
        return self._checked(key, self._fields[key])

    def _count(self, key: str) -> int:
        return self._bytes(key, self._fields[key])

    def _checked(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(f"has a wrong `{key}`")
        if problem := path_problem(value):
            raise self.error(f"has a wrong `{key}`: it {problem}")
        return value

    def _bytes(self, key: str, value: object) -> int:
        if type(value) is not int or value < 0:
            raise self.error(f"has a wrong `{key}`: it is not a number of bytes")
        return value

    def _executable(self) -> bool:
        value = self._fields.get("x", False)
        if not isinstance(value, bool) or ("x" in self._fields and not value):
            raise self.error("has a wrong `x`: it is `true` or absent")
        return value


def _without_duplicates(pairs: list[tuple[str, Value]]) -> Object:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("duplicate key")
    return fields
