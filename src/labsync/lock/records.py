"""One line of JSON Lines, read strictly: every key is asked for by type, and none may be left over."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsync.digest import is_sha256
from labsync.errors import InvalidError
from labsync.names import KINDS, NAME, ArtifactName, escape, path_problem
from labsync.snapshot import FileEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SIZE = 1 << 62
ABSENT = object()


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file, with its number."""

    text: str
    file: str
    number: int

    def error(self, message: str) -> InvalidError:
        """Return the error that this line is wrong."""
        return InvalidError(
            f"the lock `{self.file}` is not valid",
            issues=(f"{self.file}:{self.number}: {message}",),
            path=self.file,
            hint="`git checkout` it, or delete it and `labsync lock` writes it anew",
        )

    def newer(self) -> InvalidError:
        """Return the error that this file is from a newer labsync."""
        return InvalidError(
            f"the lock `{self.file}` was written by a newer labsync",
            issues=(f"{self.file}:{self.number}: `version` is newer than this labsync knows",),
            path=self.file,
            hint="install a newer labsync",
        )

    def fields(self) -> Fields:
        """Return the line's JSON object."""
        try:
            value: object = json.loads(self.text, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            raise self.error("is not a JSON object with distinct keys") from error
        if not isinstance(value, dict):
            raise self.error("is not a JSON object")
        return Fields(value, self)


class Lines:
    """The lines of a text, at least one, taken from the top; raises InvalidError for a text that was cut."""

    def __init__(self, text: str, file: str) -> None:
        *self._lines, rest = text.split("\n")
        self._file = file
        self._taken = 0
        if rest or not self._lines:
            raise Line("", file, len(self._lines) + 1).error("does not end in a line feed: the file was cut")

    def __iter__(self) -> Iterator[Line]:
        while self._taken < len(self._lines):
            self._taken += 1
            yield Line(self._lines[self._taken - 1], self._file, self._taken)

    def take(self, count: int) -> tuple[int, str] | None:
        """Return the number of the next line and the text of so many lines, None when fewer are left."""
        start, end = self._taken, self._taken + count
        if end > len(self._lines):
            return None
        self._taken = end
        return start + 1, "".join(f"{line}\n" for line in self._lines[start:end])


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("duplicate key")
    return fields


class Fields:
    """The keys of one line; reading a key takes it away, and `end` refuses what nobody asked for."""

    def __init__(self, values: dict[str, object], line: Line) -> None:
        self.line = line
        self._values = values

    def end(self) -> None:
        """Refuse keys that are left over."""
        if self._values:
            raise self.line.error(f"unknown key `{escape(next(iter(self._values)))}`")

    def text(self, key: str, *, optional: bool = False) -> str:
        """Return a string, empty when it may be absent and is."""
        value = self._take(key, optional=optional)
        if value is None:
            return ""
        if not isinstance(value, str) or not _is_unicode(value):
            raise self.line.error(f"`{key}` must be a string")
        return value

    def sha256(self, key: str, *, optional: bool = False) -> str:
        """Return 64 hex digits."""
        value = self.text(key, optional=optional)
        if not is_sha256(value) and (value or not optional):
            raise self.line.error(f"`{key}` must be 64 hex digits")
        return value

    def count(self, key: str) -> int:
        """Return a whole number of at least 0."""
        value = self._take(key, optional=False)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_SIZE:
            raise self.line.error(f"`{key}` must be a whole number of at least 0")
        return value

    def flag(self, key: str) -> bool:
        """Return whether a key is there; its only value is true."""
        value = self._take(key, optional=True)
        if value is not None and value is not True:
            raise self.line.error(f"`{key}` must be true or absent")
        return value is True

    def inner(self, key: str) -> Fields | None:
        """Return an object, None when it is absent."""
        value = self._take(key, optional=True)
        if value is not None and not isinstance(value, dict):
            raise self.line.error(f"`{key}` must be an object")
        return None if value is None else Fields(value, self.line)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """Return a list of pairs of strings, empty when it is absent."""
        value = self._take(key, optional=True)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.line.error(f"`{key}` must be a list")
        return tuple(self._pair(key, item) for item in value)

    def artifact(self, key: str) -> ArtifactName:
        """Return `kind/name`."""
        value = self.text(key)
        kind, _, name = value.partition("/")
        if kind not in KINDS or not NAME.fullmatch(name):
            raise self.line.error(f"`{escape(value)}` is not `kind/name`")
        return ArtifactName(value)

    def entry(self) -> FileEntry:
        """Return the file entry made of `path`, `sha256`, `size` and `x`."""
        path = self.text("path")
        if problem := path_problem(path):
            raise self.line.error(f"the path `{escape(path)}` {problem}")
        return FileEntry(path, self.sha256("sha256"), self.count("size"), self.flag("x"))

    def _pair(self, key: str, item: object) -> tuple[str, str]:
        match item:
            case [str(first), str(second)] if _is_unicode(first + second):
                return first, second
            case _:
                raise self.line.error(f"`{key}` must be a list of pairs of strings")

    def _take(self, key: str, *, optional: bool) -> object:
        if key not in self._values and not optional:
            raise self.line.error(f"`{key}` is missing")
        value = self._values.pop(key, ABSENT)
        if value is None:
            raise self.line.error(f"`{key}` must not be null")
        return None if value is ABSENT else value


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
