"""Whether a file is all there, as far as its own format tells: its end is where its beginning says."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

Wholeness = Literal["whole", "broken", "unknown"]
"""`whole`: the format's own end is there; `broken`: it is not, yet; `unknown`: the format does not tell."""

_BLOCK = 1 << 20
_MAX_HEADER = 100 << 20  # https://github.com/huggingface/safetensors: a header has at most 100 MB
_END_RECORD = b"PK\x05\x06"
_END_SIZE, _MAX_COMMENT = 22, 0xFFFF
_ZIP_BEGIN = b"PK\x03\x04"
_ZIP64_LOCATOR = b"PK\x06\x07"
_TAR_BLOCK = 512


def wholeness(path: str, file: BinaryIO, size: int) -> Wholeness:
    """Return whether the open file of this name and size is all there; raises OSError."""
    for suffixes, check in _CHECKS.items():
        if path.lower().endswith(suffixes):
            return check(file, size)
    return "unknown"


def missing_shards(index: bytes, names: Collection[str]) -> list[str]:
    """Return the files that a `*.safetensors.index.json` names and that are not among `names`."""
    try:
        shards = json.loads(index)["weight_map"].values()
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return sorted({shard for shard in shards if isinstance(shard, str)} - set(names))


def _safetensors(file: BinaryIO, size: int) -> Wholeness:
    """Compare the size with the header's last offset (https://github.com/huggingface/safetensors#format)."""
    if size < 8:
        return "broken"
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(size - 8, _MAX_HEADER):
        return "broken"
    try:
        header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "broken"
    return "whole" if 8 + length + max(ends, default=0) == size else "broken"


def _zip(file: BinaryIO, size: int) -> Wholeness:
    """Look for the end record, and for the directory where it says (APPNOTE.TXT, 4.3.16).

    torch.save writes zip files; the older form of it, a bare pickle, does not tell its end.
    """
    if (begin := file.read(4)) != _ZIP_BEGIN:
        return "broken" if _ZIP_BEGIN.startswith(begin) else "unknown"
    tail_size = min(size, _END_SIZE + _MAX_COMMENT)
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    at = tail.rfind(_END_RECORD)
    if at < 0 or len(tail) - at < _END_SIZE:
        return "broken"
    length, offset, comment = struct.unpack("<IIH", tail[at + 12 : at + _END_SIZE])
    end = size - tail_size + at
    if end + _END_SIZE + comment != size:
        return "broken"
    is_large = tail[max(at - 20, 0) : at].startswith(_ZIP64_LOCATOR)
    return "whole" if is_large or length + offset == end else "broken"


def _tar(file: BinaryIO, size: int) -> Wholeness:
    """Walk from header to header to the two empty blocks that end an archive.

    https://www.gnu.org/software/tar/manual/html_node/Standard.html
    """
    if size % _TAR_BLOCK:
        return "broken"
    at = 0
    while at + 2 * _TAR_BLOCK <= size:
        file.seek(at)
        header = file.read(_TAR_BLOCK)
        if not any(header):
            return "broken" if any(file.read(_TAR_BLOCK)) else "whole"
        length = _tar_size(header[124:136])
        if length is None:
            return "broken"
        at += _TAR_BLOCK + -(-length // _TAR_BLOCK) * _TAR_BLOCK
    return "broken"


def _tar_size(text: bytes) -> int | None:
    """Return the size in a header: octal digits, or a number of base 256 where the first bit is set."""
    if text[0] & 0x80:
        return int.from_bytes(text[1:], "big")
    try:
        return int(text.strip(b"\0 ") or b"0", 8)
    except ValueError:
        return None


def _gzip(file: BinaryIO, size: int) -> Wholeness:
    """Unpack to the end of the last member, where its checksum stands (RFC 1952)."""
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
    rest = b""  # of what was read, behind the end of a member
    try:
        while block := rest or file.read(_BLOCK):
            rest = b""
            while block and not unpack.eof:
                unpack.decompress(block, _BLOCK)  # a bounded part of what it holds
                block = unpack.unconsumed_tail
            if unpack.eof:
                rest = unpack.unused_data.lstrip(b"\0")
                at_end = file.tell() == size and not rest
                if at_end:
                    return "whole"
                unpack = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while unpack.decompress(b"", _BLOCK):
            continue
    except zlib.error:
        return "broken"
    return "whole" if unpack.eof else "broken"


_CHECKS: Mapping[tuple[str, ...], Callable[[BinaryIO, int], Wholeness]] = {
    (".safetensors",): _safetensors,
    (".pt", ".pth", ".bin", ".ckpt", ".npz", ".zip", ".keras"): _zip,
    (".tar",): _tar,
    (".gz", ".tgz"): _gzip,
}
