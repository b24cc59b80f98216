"""The lock as text: rendered byte for byte the same from the same values, and read strictly."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from labsync.digest import sha256_bytes
from labsync.errors import ExitCode, InvalidError, LabsyncError
from labsync.lock.model import Lock, LockedArtifact, LockedFile, Unresolved
from labsync.lock.records import Fields, Line, lines_of
from labsync.names import MAX_KEY, escape
from labsync.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    JsonValue: TypeAlias = str | int | bool | list[list[str]] | dict[str, str | int]

VERSION = 1
LISTING_FROM = 2_001
"""An artifact of this many files keeps its listing beside the lock."""

_MAX_FILE_LINE = 2 * MAX_KEY + 512  # bytes; a path at worst doubles when JSON escapes it
_CODES = {int(code) for code in ExitCode if code is not ExitCode.OK}


@dataclass(frozen=True)
class LockText:
    """The lock's own text, and the file lines of its large artifacts by their SHA-256."""

    text: str
    listings: Mapping[str, bytes] = field(default_factory=dict)

    def listing(self, digest: str, limit: int) -> bytes:  # noqa: ARG002  the form `parse_lock` asks for
        """Return the listing of this digest."""
        return self.listings[digest]


def render_lock(lock: Lock) -> LockText:
    """Return the lock's text; equal values give equal bytes, whatever order they come in."""
    lines = [_json({"version": VERSION})]
    listings: dict[str, bytes] = {}
    for name in sorted(lock.artifacts):
        locked = lock.artifacts[name]
        header = _header(locked)
        files = "" if locked.made or locked.unresolved else "".join(map(_file_line, _sorted(locked)))
        if len(locked.files) >= LISTING_FROM:
            data = files.encode()
            header["listing"], files = sha256_bytes(data), ""
            listings[sha256_bytes(data)] = data
        lines += [_json(header), files]
    return LockText("".join(lines), listings)


def _json(fields: Mapping[str, JsonValue]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) + "\n"


def _header(locked: LockedArtifact) -> dict[str, JsonValue]:
    fields: dict[str, JsonValue] = {"artifact": locked.name}
    if locked.made:
        return {**fields, "made": True}
    fields |= {"inputs": locked.inputs, "origin": locked.origin}
    if locked.unresolved is not None:
        why = locked.unresolved
        message, hint = redact(why.message), redact(why.hint)
        return {**fields, "unresolved": {"code": why.code, "message": message, "hint": hint}}
    fields |= {"revision": locked.revision, "snapshot": locked.snapshot.id, "files": len(locked.files)}
    if locked.filtered:
        fields["filtered"] = True
    if locked.skipped:
        fields["skipped"] = [[path, reason] for path, reason in sorted(locked.skipped)]
    return fields


def _sorted(locked: LockedArtifact) -> list[LockedFile]:
    return sorted(locked.files, key=lambda file: file.entry.path.encode())


def _file_line(file: LockedFile) -> str:
    line = file.entry.canonical()
    extra: dict[str, JsonValue] = {}
    if file.oid:
        extra["oid"] = file.oid
    if file.lfs:
        extra["lfs"] = True
    if file.xet:
        extra["xet"] = file.xet
    return f"{line[:-1]},{_json(extra)[1:]}" if extra else f"{line}\n"


def parse_lock(text: str, file: str, listing: Callable[[str, int], bytes], *, salvage: bool = False) -> Lock:
    """Return the lock that a text describes; `file` is its name for messages.

    `listing` returns the listing of a digest, decompressed to at most the given number of bytes; it
    is checked here, and with `salvage` an artifact whose listing is wrong is unresolved. Raises
    InvalidError (3) with `file:line` for a newer version, an unknown key, a wrong type or digest, a
    snapshot that its files do not have, lines out of order, a cut file.
    """
    lines = lines_of(text, file)
    header = next(lines).fields()
    if (version := header.count("version")) != VERSION:
        raise header.line.newer() if version > VERSION else header.line.error("`version` must be 1")
    header.end()
    artifacts: dict[str, LockedArtifact] = {}
    last = ""
    for line in lines:
        locked = _artifact(line, lines, listing, salvage=salvage)
        if locked.name <= last:
            raise line.error(f"`{locked.name}` is out of order or there twice")
        artifacts[locked.name] = locked
        last = locked.name
    return Lock.of(artifacts.values())


def _artifact(
    line: Line, lines: Iterator[Line], listing: Callable[[str, int], bytes], *, salvage: bool
) -> LockedArtifact:
    fields = line.fields()
    name = fields.artifact("artifact")
    if fields.flag("made"):
        fields.end()
        return LockedArtifact(name, made=True)
    inputs, origin = fields.sha256("inputs"), fields.text("origin")
    if unresolved := fields.inner("unresolved"):
        fields.end()
        return LockedArtifact(name, inputs, origin, unresolved=_unresolved(unresolved))
    revision, snapshot, count = fields.text("revision"), fields.sha256("snapshot"), fields.count("files")
    filtered, skipped = fields.flag("filtered"), fields.pairs("skipped")
    digest = fields.sha256("listing", optional=True)
    fields.end()
    if bool(digest) != (count >= LISTING_FROM):
        raise line.error(f"`listing` stands exactly where `files` is {LISTING_FROM} or more")
    bare = LockedArtifact(name, inputs, origin, revision, (), skipped, filtered)
    if not digest:
        return _checked(line, replace(bare, files=tuple(_files(line, lines, count))), snapshot)
    try:
        return _checked(line, replace(bare, files=_listing(line, digest, count, listing)), snapshot)
    except InvalidError as error:
        if not salvage:
            raise
        why = Unresolved(int(error.exit_code), error.what, error.hint)
        return LockedArtifact(name, inputs, origin, unresolved=why)


def _listing(
    line: Line, digest: str, count: int, listing: Callable[[str, int], bytes]
) -> tuple[LockedFile, ...]:
    """Return the files of a listing beside the lock."""
    lines = _listed(line, digest, count, listing)
    files = tuple(_files(line, lines, count))
    if next(lines, None) is not None:
        raise line.error(f"its listing holds more than {count} files")
    return files


def _unresolved(fields: Fields) -> Unresolved:
    why = Unresolved(fields.count("code"), fields.text("message"), fields.text("hint"))
    fields.end()
    if why.code not in _CODES:
        raise fields.line.error(f"`code` {why.code} is no exit code of labsync")
    return why


def _listed(line: Line, digest: str, count: int, listing: Callable[[str, int], bytes]) -> Iterator[Line]:
    data = listing(digest, count * _MAX_FILE_LINE)
    name = f"{line.file}.d/{digest}.jsonl.zst"
    if sha256_bytes(data) != digest:
        raise InvalidError(
            f"the listing `{name}` is damaged",
            issues=(f"{line.file}:{line.number}: `{name}` does not have the digest in its name",),
            hint="`git checkout` it, or `labsync lock` writes it anew",
        )
    try:
        return lines_of(data.decode(), name)
    except UnicodeDecodeError as error:
        raise line.error(f"`{name}` is not UTF-8 text") from error


def _files(header: Line, lines: Iterator[Line], count: int) -> Iterator[LockedFile]:
    last = b""
    for _ in range(count):
        line = next(lines, None)
        if line is None:
            raise header.error(f"`files` says {count}, but fewer file lines follow: the file was cut")
        locked = _file(line.fields())
        path = locked.entry.path.encode()
        if path <= last:
            raise line.error(f"`{escape(locked.entry.path)}` is out of order or there twice")
        last = path
        yield locked


def _file(fields: Fields) -> LockedFile:
    entry = fields.entry()
    locked = LockedFile(
        entry, fields.text("oid", optional=True), fields.flag("lfs"), fields.text("xet", optional=True)
    )
    fields.end()
    return locked


def _checked(line: Line, locked: LockedArtifact, snapshot: str) -> LockedArtifact:
    try:
        actual = locked.snapshot.id
    except LabsyncError as error:
        raise line.error(error.what) from error
    if actual != snapshot:
        raise line.error("its files do not make the snapshot that it names")
    return locked
