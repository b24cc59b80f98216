"""The lock as text: rendered byte for byte the same from the same values, and read strictly."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from labsync.digest import sha256_bytes, sha256_stream
from labsync.errors import ExitCode, InvalidError, LabsyncError
from labsync.lock.listing import file_lines, read_files, read_listing
from labsync.lock.model import Listing, Lock, LockedArtifact, LockedFile, Unresolved
from labsync.lock.records import Lines
from labsync.names import MAX_KEY
from labsync.secrets import redact
from labsync.snapshot import Snapshot, no_collections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from labsync.lock.records import Fields, Line

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

    def listing(self, digest: str, limit: int) -> list[bytes]:  # noqa: ARG002  the form `parse_lock` asks for
        """Return the listing of this digest, in blocks."""
        return [self.listings[digest]]


def render_lock(lock: Lock) -> LockText:
    """Return the lock's text; equal values give equal bytes, whatever order they come in."""
    lines = [_json({"version": VERSION})]
    listings: dict[str, bytes] = {}
    for name in sorted(lock.artifacts):
        locked = lock.artifacts[name]
        header = _header(locked)
        files = "" if locked.made or locked.unresolved else file_lines(locked.files)
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
    fields |= {"revision": locked.revision, "snapshot": locked.snapshot_id}
    fields |= {"files": len(locked.files), "bytes": locked.size}
    if locked.filtered:
        fields["filtered"] = True
    if locked.skipped:
        fields["skipped"] = [[path, reason] for path, reason in sorted(locked.skipped)]
    return fields


def parse_lock(
    text: str, file: str, listing: Callable[[str, int], Iterable[bytes]], *, salvage: bool = False
) -> Lock:
    """Return the lock that a text describes; `file` is its name for messages.

    `listing` returns the listing of a digest, decompressed to at most the given number of bytes, in
    blocks. It is asked, and what it returns is checked, when the files of its artifact are first used;
    with `salvage` now, and an artifact whose listing is wrong is unresolved. Raises InvalidError (3)
    with `file:line` for a newer version, an unknown key, a wrong type or digest, a snapshot that its
    files do not have, lines out of order, a cut file.
    """
    lines = Lines(text, file)
    header = next(iter(lines)).fields()
    if (version := header.count("version")) != VERSION:
        raise header.line.newer() if version > VERSION else header.line.error("`version` must be 1")
    header.end()
    artifacts: dict[str, LockedArtifact] = {}
    last = ""
    for line in lines:
        locked = _artifact(line, lines, listing)
        if salvage:
            locked = _salvaged(locked)
        if locked.name <= last:
            raise line.error(f"`{locked.name}` is out of order or there twice")
        artifacts[locked.name] = locked
        last = locked.name
    return Lock.of(artifacts.values())


def _artifact(line: Line, lines: Lines, listing: Callable[[str, int], Iterable[bytes]]) -> LockedArtifact:
    fields = line.fields()
    name = fields.artifact("artifact")
    if fields.flag("made"):
        fields.end()
        return LockedArtifact(name, made=True)
    inputs, origin = fields.sha256("inputs"), fields.text("origin")
    if unresolved := fields.inner("unresolved"):
        fields.end()
        return LockedArtifact(name, inputs, origin, unresolved=_unresolved(unresolved))
    revision = fields.text("revision")
    promise = _Promise(line, fields.sha256("snapshot"), fields.count("files"), fields.count("bytes"))
    filtered, skipped = fields.flag("filtered"), fields.pairs("skipped")
    digest = fields.sha256("listing", optional=True)
    fields.end()
    if bool(digest) != (promise.count >= LISTING_FROM):
        raise line.error(f"`listing` stands exactly where `files` is {LISTING_FROM} or more")
    bare = LockedArtifact(name, inputs, origin, revision, (), skipped, filtered)
    if not digest:
        return replace(bare, files=_inline(promise, lines))
    read = partial(_beside, promise, digest, listing)
    return replace(bare, files=Listing(promise.snapshot, promise.count, promise.size, read))


def _salvaged(locked: LockedArtifact) -> LockedArtifact:
    """Return the artifact with its listing read, or unresolved where that is wrong."""
    try:
        Lock.of([locked]).read_listings()
    except InvalidError as error:
        why = Unresolved(int(error.exit_code), error.what, error.hint)
        return LockedArtifact(locked.name, locked.inputs, locked.origin, unresolved=why)
    return locked


def _unresolved(fields: Fields) -> Unresolved:
    why = Unresolved(fields.count("code"), fields.text("message"), fields.text("hint"))
    fields.end()
    if why.code not in _CODES:
        raise fields.line.error(f"`code` {why.code} is no exit code of labsync")
    return why


@dataclass(frozen=True, slots=True)
class _Promise:
    """What an artifact's line says of its files."""

    line: Line
    snapshot: str
    count: int
    size: int

    def kept_by(self, files: tuple[LockedFile, ...]) -> Snapshot:
        """Return the snapshot of the files; raises InvalidError where they are not as promised."""
        if len(files) > self.count:
            raise self.line.error(f"its listing holds more than {self.count} files")
        if len(files) < self.count:
            raise self.too_few()
        try:
            snapshot = Snapshot.of(file.entry for file in files)
        except LabsyncError as error:
            raise self.line.error(error.what) from error
        if snapshot.id != self.snapshot:
            raise self.line.error("its files do not make the snapshot that it names")
        if snapshot.size != self.size:
            raise self.line.error(f"`bytes` says {self.size}, and its files have {snapshot.size}")
        return snapshot

    def too_few(self) -> InvalidError:
        """Return the error that files are missing."""
        return self.line.error(f"`files` says {self.count}, but fewer file lines follow: the file was cut")


def _inline(promise: _Promise, lines: Lines) -> tuple[LockedFile, ...]:
    taken = lines.take(promise.count)
    if taken is None:
        raise promise.too_few()
    number, text = taken
    files = tuple(chain.from_iterable(read_files([text], promise.line.file, number)))
    promise.kept_by(files)
    return files


def _beside(
    promise: _Promise, digest: str, listing: Callable[[str, int], Iterable[bytes]]
) -> tuple[tuple[LockedFile, ...], Snapshot]:
    """Return the files of the listing beside the lock, and their snapshot; it is hashed before it is read."""
    file = f"{promise.line.file}.d/{digest}.jsonl.zst"
    limit = promise.count * _MAX_FILE_LINE
    if sha256_stream(listing(digest, limit))[0] != digest:
        raise InvalidError(
            f"the listing `{file}` is damaged",
            issues=(
                f"{promise.line.file}:{promise.line.number}: `{file}` does not have the digest in its name",
            ),
            hint="`git checkout` it, or `labsync lock` writes it anew",
        )
    with no_collections():
        files = read_listing(listing(digest, limit), file, promise.count)
        return files, promise.kept_by(files)
