"""The part of a file that is asked for, and whether an HTTP answer is that part and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from labsync.errors import IntegrityError, LabsyncError, UnavailableError
from labsync.origins.http_errors import Answer, bare
from labsync.places import NoRangesError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from labsync.snapshot import FileEntry

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_UNSATISFIED = re.compile(r"bytes \*/(\d+)")
UPGRADE = "the file has changed at its origin: `labsync lock --upgrade`"


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes of `entry` from `start` up to `stop`; `stop` is -1 where nobody knows the size.

    With a `version` only those of the file with this strong ETag.
    """

    entry: FileEntry
    start: int
    stop: int
    version: str = ""

    @classmethod
    def of(cls, entry: FileEntry, start: int, stop: int | None, version: str = "") -> Part:
        """Return the part that `Reader.read` was asked for."""
        return cls(entry, start, entry.size if stop is None else stop, version)

    @property
    def is_whole(self) -> bool:
        """Say whether it is the file from its first byte to its end."""
        return self.start == 0 and self.stop == self.entry.size

    @property
    def is_empty(self) -> bool:
        """Say whether there is nothing to ask for; an empty file still has to be there."""
        return not self.is_whole and self.start == self.stop

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that ask for it; the whole file is asked for without, which every server can."""
        if self.is_whole:
            return {}
        wanted = {"Range": f"bytes={self.start}-{self.stop - 1 if self.stop >= 0 else ''}"}
        return {**wanted, "If-Range": self.version} if self.version else wanted


def check(answer: Answer, part: Part) -> None:
    """Raise when the answer cannot be exactly the part, as the contract of `Reader.read` says."""
    path, size, wanted = part.entry.path, whole_size(answer), part.entry.size
    if answer.status == 416:
        raise _unsatisfied(answer, part, size)
    if answer.is_encoded:
        raise UnavailableError(
            f"`{bare(answer.url)}` sent the file compressed although asked not to", path=path
        )
    if is_page(answer) and (size != wanted or size < 0):
        raise page_error(answer)
    if size >= 0 and 0 <= wanted != size:
        raise _other_size(answer, part, size)
    if part.version and part.version != strong_etag(answer):
        raise NoRangesError(f"`{bare(answer.url)}` has another version of the file now", path=path)
    if "content-range" not in answer.headers and answer.status == 200:
        if part.is_whole:
            return
        raise NoRangesError(f"`{bare(answer.url)}` gives no part of the file, only the whole", path=path)
    _check_range(answer, part)


def _check_range(answer: Answer, part: Part) -> None:
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
    if match is None or int(match[1]) != part.start or part.stop not in (-1, int(match[2]) + 1):
        raise UnavailableError(
            f"`{bare(answer.url)}` answered with another range than the one asked for", path=part.entry.path
        )


def _unsatisfied(answer: Answer, part: Part, size: int) -> LabsyncError:
    if 0 <= size != part.entry.size >= 0:
        return _other_size(answer, part, size)
    return UnavailableError(
        f"`{bare(answer.url)}` answered 416 for a range that the file has", path=part.entry.path
    )


def _other_size(answer: Answer, part: Part, size: int) -> IntegrityError:
    return IntegrityError(
        f"`{bare(answer.url)}` has {size} bytes, and {part.entry.size} were expected",
        path=part.entry.path,
        hint=UPGRADE,
    )


def strong_etag(answer: Answer) -> str:
    """Return the ETag that names exactly these bytes, empty where the server gives none or a weak one."""
    etag = answer.headers.get("etag", "")
    return "" if etag.startswith("W/") else etag


def whole_size(answer: Answer) -> int:
    """Return the size of the whole file as the answer tells it, -1 where it does not."""
    text = answer.headers.get("content-range", "")
    if match := _CONTENT_RANGE.fullmatch(text) or _UNSATISFIED.fullmatch(text):
        total = match[match.re.groups]
        return -1 if total == "*" else int(total)
    if answer.status != 200 or answer.is_encoded:
        return -1
    length = answer.headers.get("content-length", "")
    return int(length) if length.isdigit() else -1


def is_page(answer: Answer) -> bool:
    """Say whether a web page came where its address promises something else."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "text/html" and not urlsplit(answer.url).path.lower().endswith((".html", ".htm"))


def page_error(answer: Answer) -> UnavailableError:
    """Return the error for a web page in a file's place."""
    return UnavailableError(
        f"`{bare(answer.url)}` answered with a web page instead of the file",
        hint="this network may want you to sign in first; open the address in a browser",
    )
