"""An index as bytes: a zstandard frame of JSON Lines, whose id is the SHA-256 of the stored bytes.

```
{"version":1,"artifact":"results/runs","snapshot":"<64 hex>","parent":"","time":"<UTC>","host":"a"}
{"path":"a.csv","size":12,"sha256":"<64 hex>","key":"results/runs/20261120T101500Z-1a2b3c4d/a.csv"}
{"path":"b.sh","size":4,"sha256":"<64 hex>","x":true,"key":"results/runs/<batch>/pack-00000.tar","offset":512}
```

The header of an index with packs has `packs`, too: their sizes by key. Lines as labsync writes them are
read many at a time; where one is written otherwise, its neighbours and it are read one by one, which also
finds the line to complain of.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import chain
from json.encoder import encode_basestring
from operator import attrgetter, lt
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes
from labsync.errors import IntegrityError, InvalidError, RefusedError
from labsync.mirrors.base import INDEXES, Index, Located
from labsync.mirrors.record import VERSION, Object, Record, line_of
from labsync.names import are_plain
from labsync.snapshot import ABBREVIATION, FileEntry, from_columns, no_collections

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_FILES = 2_000_000
MAX_HEADER = 1 << 22  # the sizes of some 40,000 packs
MAX_LINE = 8192  # two names of 1,024 bytes, every byte escaped, and the rest
MAX_TEXT = 512 * MAX_FILES
MAX_STORED = MAX_TEXT // 4  # digests do not compress: a true index is about a quarter of its text
_LEVEL = 1  # most of the text are digests: higher levels take ten times as long and save nothing
_WINDOW = 1 << 24  # what a reader spends on a frame at most
_BLOCK = 1 << 18
_AT_ONCE = 1000  # files whose lines are compressed together

_HEADER = ("version", "artifact", "snapshot", "parent", "time", "host")
_FILE = ("path", "size", "sha256", "key")
_FILE_OPTIONAL = ("x", "offset")


@cache
def _lines() -> re.Pattern[str]:
    """Return what matches the lines that `_file_line` writes; compiled when there are lines to read."""
    name, count = r'"([^"\\\x00-\x1f\x7f-\x9f]+)"', "(0|[1-9][0-9]{0,17})"
    entry = rf'"path":{name},"size":{count},"sha256":"([0-9a-f]{{64}})"(,"x":true)?'
    return re.compile(rf'^{{{entry},"key":{name}(?:,"offset":{count})?}}$', re.MULTILINE)


def index_bytes(index: Index) -> bytes:
    """Return the stored bytes of an index; their SHA-256 is its id.

    Equal indexes give equal bytes within one version of the zstandard library only: keep the id, or
    the bytes, and never derive one again from a parsed index. Raises RefusedError for one that is too
    large, InvalidError for one whose packs cannot hold its files.
    """
    import zstandard

    if len(index.files) > MAX_FILES:
        raise RefusedError(
            f"{len(index.files)} files are more than an index can list", hint="split the artifact"
        )
    _check_packs(index, "the new index")
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    parts = [compressor.compress(lines) for lines in chain([_header(index)], _file_lines(index))]
    return b"".join((*parts, compressor.flush()))


def _header(index: Index) -> bytes:
    fields: Object = {
        "version": VERSION, "artifact": index.artifact, "snapshot": index.snapshot.id,
        "parent": index.parent, "time": index.time, "host": index.host,
    }  # fmt: skip
    if index.packs:
        fields["packs"] = dict(sorted(index.packs.items()))
    header = line_of(fields)
    if len(header) > MAX_HEADER:
        raise RefusedError(
            f"{len(index.packs)} packs are more than an index can list", hint="split the artifact"
        )
    return header


def _file_lines(index: Index) -> Iterator[bytes]:
    files = sorted(index.files, key=attrgetter("entry.path"))
    for start in range(0, len(files), _AT_ONCE):
        yield "".join(map(_file_line, files[start : start + _AT_ONCE])).encode()


def _file_line(located: Located) -> str:
    entry, offset = located.entry, located.offset
    x = ',"x":true' if entry.executable else ""
    inside = "" if offset is None else f',"offset":{offset}'
    return (
        f'{{"path":{encode_basestring(entry.path)},"size":{entry.size},"sha256":"{entry.sha256}"{x},'
        f'"key":{encode_basestring(located.key)}{inside}}}\n'
    )


def parse_index(data: bytes, expected_id: str) -> Index:
    """Return the index stored as `data`.

    Raises IntegrityError when the bytes are not those that the id names, InvalidError for a newer
    version, an unknown key, a wrong value, files out of order, a snapshot id that the files do not
    have, or packs that cannot hold their files; RefusedError for a file name that labsync does not
    carry. Never expands more than MAX_TEXT.
    """
    if (found := sha256_bytes(data)) != expected_id:
        raise IntegrityError(
            f"the index `{expected_id}` holds other bytes: their digest is `{found}`",
            path=f"{INDEXES}{expected_id}.jsonl.zst",
            safe="it was not used, and nothing was changed",
        )
    where = f"the index `{expected_id[:ABBREVIATION]}`"
    blocks = _blocks(data, where)
    first, _, rest = next(blocks, b"").partition(b"\n")
    header = Record(first, f"{where} line 1", MAX_HEADER)
    header.check(_HEADER, ("packs",))
    with no_collections():
        files = tuple(chain.from_iterable(_files(chain([rest], blocks), where)))
    index = Index(
        header.artifact(),
        files,
        parent=header.digest("parent", empty=True),
        time=header.text("time"),
        host=header.text("host"),
        packs=header.packs(),
    )
    if header.digest("snapshot") != index.snapshot.id:
        raise InvalidError(f"{where} does not list the snapshot that it names")
    _check_packs(index, where)
    return index


def _check_packs(index: Index, where: str) -> None:
    if not index.packs:
        return
    for located in index.files:
        if located.offset is not None:
            end = located.offset + located.entry.size
            if end > index.packs.get(located.key, -1):
                raise InvalidError(f"{where} names no pack `{located.key}` of {end} bytes or more")


def _files(blocks: Iterable[bytes], where: str) -> Iterator[Sequence[Located]]:
    number, last = 2, ""
    for block in blocks:
        count = block.count(b"\n")
        if number + count > MAX_FILES + 2:
            raise InvalidError(f"{where} lists more than {MAX_FILES} files")
        files = _written_here(block, count, last)
        if files is None:
            files = _one_by_one(block, number, last, where)
        yield files
        number += count
        last = files[-1].entry.path if files else last


def _written_here(block: bytes, count: int, last: str) -> Sequence[Located] | None:
    """Return the files of lines as `_file_line` writes them, None where a closer look is needed."""
    try:
        rows = _lines().findall(block.decode())
    except UnicodeDecodeError:
        return None
    if not rows or len(rows) != count:
        return None
    paths, sizes, digests, executable, keys, offsets = zip(*rows, strict=True)
    if not (are_plain(paths) and are_plain(keys) and all(map(lt, (last, *paths), paths))):
        return None
    entries = from_columns(FileEntry, paths, digests, list(map(int, sizes)), list(map(bool, executable)))
    return from_columns(Located, entries, keys, [int(offset) if offset else None for offset in offsets])


def _one_by_one(block: bytes, number: int, last: str, where: str) -> Sequence[Located]:
    files = []
    for line in block.split(b"\n")[:-1]:
        record = Record(line, f"{where} line {number}")
        record.check(_FILE, _FILE_OPTIONAL)
        located = record.located()
        if located.entry.path <= last:
            raise record.error("is out of order")
        files.append(located)
        number, last = number + 1, located.entry.path
    return files


def _blocks(data: bytes, where: str) -> Iterator[bytes]:
    """Yield whole lines, many at a time, expanding only as far as they are asked for."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    rest, total, longest = b"", 0, MAX_HEADER
    try:
        with decompressor.stream_reader(data, read_across_frames=True) as reader:
            while block := reader.read(_BLOCK):
                total += len(block)
                lines, end, rest = (rest + block).rpartition(b"\n")
                longest = MAX_LINE if end else longest
                if total > MAX_TEXT or len(rest) > longest:
                    raise InvalidError(f"{where} is larger than an index can be")
                if end:
                    yield lines + end
    except zstandard.ZstdError as error:
        raise InvalidError(f"{where} is not a zstandard frame: {error}") from error
    if rest or not total:
        raise InvalidError(f"{where} ends in the middle of a line")
