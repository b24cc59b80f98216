"""Write files whose bytes are the same on every machine: no clock, no compressor, no random state."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
BLOCK = 0xFFFF  # bytes, the longest stored block of RFC 1951


class Tree:
    """A folder being filled; a file that is right already keeps its mtime."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = 0
        self.bytes = 0
        self.written = 0

    def write(self, path: str, data: bytes) -> None:
        """Put these bytes under the relative path."""
        target = self.root / path
        self.files += 1
        self.bytes += len(data)
        if target.is_file() and target.read_bytes() == data:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        self.written += 1

    def write_json(self, path: str, value: Json) -> None:
        """Put a JSON document with sorted keys under the relative path."""
        text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
        self.write(path, f"{text}\n".encode())


def stored_zlib(data: bytes) -> bytes:
    """Return a zlib stream of stored blocks: compressors differ between builds, this does not."""
    out = [b"\x78\x01"]
    starts = range(0, len(data), BLOCK) if data else (0,)
    for start in starts:
        block = data[start : start + BLOCK]
        last = start + BLOCK >= len(data)
        out += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    return b"".join([*out, struct.pack(">I", zlib.adler32(data))])


def png(pixels: np.ndarray) -> bytes:
    """Return the PNG file of a height x width x 3 array of bytes."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + pixels[y].tobytes() for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", stored_zlib(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def safetensors(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return the safetensors file of float32 arrays, in the order of their names."""
    header: dict[str, Json] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    offset = 0
    for name in sorted(tensors):
        data = tensors[name].astype("<f4", copy=False).tobytes()
        shape: list[Json] = [int(size) for size in tensors[name].shape]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def digest(data: bytes) -> str:
    """Return the SHA-1 that names a git object."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def sharded(tensors: Mapping[str, np.ndarray], shards: int) -> Sequence[tuple[str, bytes]]:
    """Return the files of a checkpoint in so many shards, the index last, named as the hub names them."""
    names = sorted(tensors)
    weight_map: dict[str, Json] = {}
    out: list[tuple[str, bytes]] = []
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        weight_map.update(dict.fromkeys(part, name))
        out.append((name, safetensors({key: tensors[key] for key in part})))
    total = sum(tensor.nbytes for tensor in tensors.values())
    index: Json = {"metadata": {"total_size": total}, "weight_map": weight_map}
    text = json.dumps(index, indent=2, sort_keys=True)
    return [*out, ("model.safetensors.index.json", f"{text}\n".encode())]
