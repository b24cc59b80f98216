"""The mirror's records as bytes: how an index and a head are written, and how strictly they are read.

An index is a zstandard frame of JSON Lines; its id is the SHA-256 of the stored, compressed bytes:

```
{"version":1,"artifact":"results/runs","snapshot":"<64 hex>","parent":"","time":"<UTC>","host":"a"}
{"path":"a.csv","size":12,"sha256":"<64 hex>","key":"results/runs/20261120T101500Z-1a2b3c4d/a.csv"}
{"path":"b.sh","size":4,"sha256":"<64 hex>","x":true,"key":"results/runs/<batch>/pack-00000.tar","offset":512}
```

A head is one JSON object: version, artifact, snapshot, index, parent, time, host, nonce.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, TypeAlias

from labsync.digest import is_sha256, sha256_bytes
from labsync.errors import IntegrityError, InvalidError, RefusedError
from labsync.mirrors.base import CONFLICT, HEADS, INDEXES, Head, HeadName, Index, Located
from labsync.names import KINDS, NAME, ArtifactName, path_problem
from labsync.snapshot import ABBREVIATION, FileEntry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

Value: TypeAlias = "str | int | bool | float | list[object] | dict[str, object] | None"
Object: TypeAlias = "dict[str, Value]"

VERSION = 1
MAX_FILES = 2_000_000
MAX_LINE = 8192  # two names of 1,024 bytes, every byte escaped, and the rest
MAX_TEXT = 512 * MAX_FILES
MAX_STORED = MAX_TEXT // 4  # digests do not compress: a true index is about a quarter of its text
MAX_HEAD = 1 << 16
_LEVEL = 9
_WINDOW = 1 << 24  # what a reader spends on a frame at most
_BLOCK = 1 << 16

_INDEX_HEADER = ("version", "artifact", "snapshot", "parent", "time", "host")
_FILE = ("path", "size", "sha256", "key")
_FILE_OPTIONAL = ("x", "offset")
_HEAD = ("version", "artifact", "snapshot", "index", "parent", "time", "host", "nonce")


class NewerVersionError(InvalidError):
    """The record was written by a newer labsync: it is whole, and this labsync must leave it alone."""


def head_key(name: HeadName) -> str:
    """Return the key of a head, relative to the mirror."""
    return f"{HEADS}{name}.json"


def index_key(index_id: str) -> str:
    """Return the key of an index, relative to the mirror; InvalidError when this is no digest."""
    if not is_sha256(index_id):
        raise InvalidError(f"`{index_id[:80]!r}` is not the id of an index")
    return f"{INDEXES}{index_id}.jsonl.zst"


def new_batch(now: datetime, random: str = "") -> str:
    """Return the name of a new batch, as in `20261120T101500Z-1a2b3c4d`; `now` is in UTC."""
    return f"{now:%Y%m%dT%H%M%SZ}-{random or secrets.token_hex(4)}"


def index_bytes(index: Index) -> bytes:
    """Return the stored bytes of an index; their SHA-256 is its id.

    Equal indexes give equal bytes within one version of the zstandard library only: keep the id, or
    the bytes, and never derive one again from a parsed index.
    """
    import zstandard

    if len(index.files) > MAX_FILES:
        raise RefusedError(
            f"{len(index.files)} files are more than an index can list", hint="split the artifact"
        )
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    parts = [compressor.compress(line) for line in _index_lines(index)]
    return b"".join((*parts, compressor.flush()))


def _index_lines(index: Index) -> Iterator[bytes]:
    yield _line({
        "version": VERSION, "artifact": index.artifact, "snapshot": index.snapshot.id,
        "parent": index.parent, "time": index.time, "host": index.host,
    })  # fmt: skip
    for located in sorted(index.files, key=lambda file: file.entry.path.encode("utf-8", "surrogatepass")):
        entry = located.entry
        fields: Object = {"path": entry.path, "size": entry.size, "sha256": entry.sha256}
        if entry.executable:
            fields["x"] = True
        fields["key"] = located.key
        if located.offset is not None:
            fields["offset"] = located.offset
        yield _line(fields)


def _line(fields: Object) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def parse_index(data: bytes, expected_id: str) -> Index:
    """Return the index stored as `data`.

    Raises IntegrityError when the bytes are not those that the id names, InvalidError for a newer
    version, an unknown key, a wrong value, files out of order, or a snapshot id that the files do not
    have; RefusedError for a file name that labsync does not carry. Never expands more than MAX_TEXT.
    """
    if (found := sha256_bytes(data)) != expected_id:
        raise IntegrityError(
            f"the index `{expected_id}` holds other bytes: their digest is `{found}`",
            path=f"{INDEXES}{expected_id}.jsonl.zst",
            safe="it was not used, and nothing was changed",
        )
    where = f"the index `{expected_id[:ABBREVIATION]}`"
    lines = _decompressed_lines(data, where)
    header = _Record(next(lines, b""), f"{where} line 1")
    header.check(_INDEX_HEADER)
    index = Index(
        header.artifact(),
        tuple(_files(lines, where)),
        parent=header.digest("parent", empty=True),
        time=header.text("time"),
        host=header.text("host"),
    )
    if header.digest("snapshot") != index.snapshot.id:
        raise InvalidError(f"{where} does not list the snapshot that it names")
    return index


def _files(lines: Iterator[bytes], where: str) -> Iterator[Located]:
    previous = b""
    for number, line in enumerate(lines, 2):
        if number > MAX_FILES + 1:
            raise InvalidError(f"{where} lists more than {MAX_FILES} files")
        record = _Record(line, f"{where} line {number}")
        record.check(_FILE, _FILE_OPTIONAL)
        located = record.located()
        if (path := located.entry.path.encode()) <= previous:
            raise record.error("is out of order")
        previous = path
        yield located


def _decompressed_lines(data: bytes, where: str) -> Iterator[bytes]:
    """Yield the lines without their line feeds, expanding only as far as they are asked for."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    rest, total = b"", 0
    try:
        with decompressor.stream_reader(data, read_across_frames=True) as reader:
            while block := reader.read(_BLOCK):
                total += len(block)
                *lines, rest = (rest + block).split(b"\n")
                if total > MAX_TEXT or len(rest) > MAX_LINE:
                    raise InvalidError(f"{where} is larger than an index can be")
                yield from lines
    except zstandard.ZstdError as error:
        raise InvalidError(f"{where} is not a zstandard frame: {error}") from error
    if rest or not total:
        raise InvalidError(f"{where} ends in the middle of a line")


def new_head(name: HeadName, index: Index, index_id: str, expected: Head | None) -> Head:
    """Return the head that shall follow `expected`, with a nonce of its own and no mark yet."""
    return Head(
        name,
        snapshot=index.snapshot.id,
        index=index_id,
        parent=expected.snapshot if expected else "",
        time=index.time,
        host=index.host,
        nonce=secrets.token_hex(16),
        mark="",
    )


def head_bytes(head: Head) -> bytes:
    """Return the stored bytes of a head; its name and its mark are not among them."""
    return _line({
        "version": VERSION, "artifact": head.name.artifact, "snapshot": head.snapshot, "index": head.index,
        "parent": head.parent, "time": head.time, "host": head.host, "nonce": head.nonce,
    })  # fmt: skip


def parse_head(data: bytes, name: HeadName, mark: str) -> Head:
    """Return the head stored as `data` under `name`; InvalidError when it is not this head, or newer."""
    record = _Record(data, f"the head `{name}`")
    record.check(_HEAD)
    if record.artifact() != name.artifact:
        raise record.error("belongs to another artifact")
    head = Head(
        name,
        snapshot=record.digest("snapshot"),
        index=record.digest("index"),
        parent=record.digest("parent", empty=True),
        time=record.text("time"),
        host=record.text("host"),
        nonce=record.text("nonce"),
        mark=mark,
    )
    if name.label and name.label.removeprefix(CONFLICT) != head.snapshot[:ABBREVIATION]:
        raise record.error("names another snapshot")
    return head


class _Record:
    """One JSON object of a record, read strictly; `where` begins every complaint."""

    def __init__(self, line: bytes, where: str) -> None:
        self._where = where
        if len(line) > MAX_HEAD:
            raise self.error("is too long")
        try:
            value = json.loads(line, object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise self.error("is not JSON") from error
        if not isinstance(value, dict):
            raise self.error("is not an object")
        self._fields: Object = value

    def error(self, problem: str) -> InvalidError:
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
        value = self._fields[key]
        if not isinstance(value, str) or len(value) > 255 or not value.isprintable():
            raise self.error(f"has a wrong `{key}`")
        return value

    def digest(self, key: str, *, empty: bool = False) -> str:
        value = self._fields[key]
        if not isinstance(value, str) or not (is_sha256(value) or (empty and not value)):
            raise self.error(f"has a wrong `{key}`: it is not a SHA-256")
        return value

    def artifact(self) -> ArtifactName:
        kind, _, name = self.text("artifact").partition("/")
        if kind not in KINDS or NAME.fullmatch(name) is None:
            raise self.error("has a wrong `artifact`")
        return ArtifactName(f"{kind}/{name}")

    def located(self) -> Located:
        """Return the file of an index line; its path is checked by the snapshot, its key here."""
        entry = FileEntry(self._name("path"), self.digest("sha256"), self._count("size"), self._executable())
        return Located(entry, self._name("key"), self._count("offset") if "offset" in self._fields else None)

    def _name(self, key: str) -> str:
        value = self._fields[key]
        if not isinstance(value, str):
            raise self.error(f"has a wrong `{key}`")
        if problem := path_problem(value):
            raise self.error(f"has a wrong `{key}`: it {problem}")
        return value

    def _count(self, key: str) -> int:
        value = self._fields[key]
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
