"""The file lines of a lock: read many at a time as labsync writes them, one by one where they differ.

Reading one by one takes what is not exactly as labsync writes it, and finds the line to complain of.
"""

from __future__ import annotations

import re
from functools import cache
from json.encoder import encode_basestring
from operator import attrgetter, lt
from typing import TYPE_CHECKING

from labsync.lock.model import LockedFile
from labsync.lock.records import Line
from labsync.names import are_plain, escape
from labsync.snapshot import FileEntry, from_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from labsync.lock.records import Fields


@cache
def _lines() -> re.Pattern[str]:
    """Return what matches the lines that `_file_line` writes; compiled when there are lines to read."""
    return re.compile(
        r'^{"path":"([^"\\\x00-\x1f\x7f-\x9f]+)","sha256":"([0-9a-f]{64})","size":(0|[1-9][0-9]{0,17})'
        r'(,"x":true)?(?:,"oid":"([0-9a-f]+)")?(,"lfs":true)?(?:,"xet":"([0-9a-f]+)")?}$',
        re.MULTILINE,
    )


def file_lines(files: Iterable[LockedFile]) -> str:
    """Return the lines of the files, sorted by UTF-8 path."""
    return "".join(map(_file_line, sorted(files, key=attrgetter("entry.path"))))


def _file_line(file: LockedFile) -> str:
    line = file.entry.canonical()
    if not (file.oid or file.lfs or file.xet):
        return f"{line}\n"
    oid = f',"oid":{encode_basestring(file.oid)}' if file.oid else ""
    lfs = ',"lfs":true' if file.lfs else ""
    xet = f',"xet":{encode_basestring(file.xet)}' if file.xet else ""
    return f"{line[:-1]}{oid}{lfs}{xet}}}\n"


def read_files(texts: Iterable[str], file: str, number: int) -> Iterator[list[LockedFile]]:
    """Yield the files of each text of whole lines, the first of which is line `number` of `file`.

    Raises InvalidError with `file:line` for an unknown key, a wrong value, a line out of order.
    """
    last = ""
    for text in texts:
        files = _as_written(text, last)
        if files is None:
            files = _one_by_one(text, last, Line("", file, number))
        yield files
        number += len(files)
        last = files[-1].entry.path if files else last


def _as_written(text: str, last: str) -> list[LockedFile] | None:
    """Return the files of lines as `_file_line` writes them, None where a closer look is needed."""
    rows = _lines().findall(text) if text else []
    if not rows or len(rows) != text.count("\n"):
        return None
    paths, digests, sizes, executable, oids, lfs, xets = zip(*rows, strict=True)
    if not (are_plain(paths) and all(map(lt, (last, *paths), paths))):
        return None
    entries = from_columns(FileEntry, paths, digests, list(map(int, sizes)), list(map(bool, executable)))
    return from_columns(LockedFile, entries, oids, list(map(bool, lfs)), xets)


def _one_by_one(text: str, last: str, first: Line) -> list[LockedFile]:
    files = []
    for number, content in enumerate(text.split("\n")[:-1], first.number):
        line = Line(content, first.file, number)
        file = _file(line.fields())
        if file.entry.path <= last:
            raise line.error(f"`{escape(file.entry.path)}` is out of order or there twice")
        files.append(file)
        last = file.entry.path
    return files


def _file(fields: Fields) -> LockedFile:
    entry = fields.entry()
    file = LockedFile(
        entry, fields.text("oid", optional=True), fields.flag("lfs"), fields.text("xet", optional=True)
    )
    fields.end()
    return file


def read_listing(blocks: Iterable[bytes], file: str, limit: int) -> tuple[LockedFile, ...]:
    """Return the files of a listing given in blocks; it stops soon after `limit` of them."""
    files: list[LockedFile] = []
    for found in read_files(_whole_lines(blocks, file), file, 1):
        files += found
        if len(files) > limit:
            break
    return tuple(files)


def _whole_lines(blocks: Iterable[bytes], file: str) -> Iterator[str]:
    rest, number = b"", 1
    for block in blocks:
        lines, end, rest = (rest + block).rpartition(b"\n")
        try:
            yield (lines + end).decode()
        except UnicodeDecodeError as error:
            raise Line("", file, number).error("is not UTF-8 text") from error
        number += lines.count(b"\n") + len(end)
    if rest:
        raise Line("", file, number).error("does not end in a line feed: the file was cut")
