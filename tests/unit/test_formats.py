"""Whether a file is all there: real files of each format, cut off at every point that matters."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from labsync.guard.formats import missing_shards, wholeness

if TYPE_CHECKING:
    from collections.abc import Collection


def judge(path: str, data: bytes) -> str:
    return wholeness(path, io.BytesIO(data), len(data))


def safetensors(size: int = 64) -> bytes:
    header = {
        "__metadata__": {"format": "pt"},
        "w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]},
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def torch_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 100)
        archive.writestr("archive/data/0", bytes(1000))
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("a")
        member.size = 700
        archive.addfile(member, io.BytesIO(bytes(range(1, 8)) * 100))
    return file.getvalue()


FILES = {
    "model.safetensors": safetensors(),
    "checkpoint.pth": torch_zip(),
    "pytorch_model.bin": torch_zip(),
    "shard.tar": tar(),
    "log.txt.gz": gzip.compress(b"line\n" * 1000),
    "two.gz": gzip.compress(b"one") + gzip.compress(b"two" * 500_000),
}


@pytest.mark.parametrize("path", FILES)
def test_whole_files_are_whole(path: str) -> None:
    assert judge(path, FILES[path]) == "whole"
    assert judge(path.upper(), FILES[path]) == "whole"


@pytest.mark.parametrize("path", FILES)
@given(share=st.floats(0, 0.98))
@example(share=0.001953125)
def test_a_file_that_is_cut_off_is_broken(path: str, share: float) -> None:
    data = FILES[path]
    cut = int(len(data) * share)
    assert judge(path, data[:cut]) == ("whole" if cut in _wholes(path, data) else "broken")


def _wholes(path: str, data: bytes) -> Collection[int]:
    """Return where a cut leaves a whole file: behind a gzip member, in the padding of a tar."""
    if path == "two.gz":
        return {len(gzip.compress(b"one"))}
    return range(512 + 1024 + 1024, len(data), 512) if path == "shard.tar" else ()


@pytest.mark.parametrize("path", ["model.safetensors", "checkpoint.pth", "shard.tar"])
def test_a_byte_is_missing(path: str) -> None:
    assert judge(path, FILES[path][:-1]) == "broken"


def test_more_than_the_header_says_is_not_whole_either() -> None:
    assert judge("model.safetensors", safetensors() + b"x") == "broken"


def test_a_header_that_is_nonsense_is_broken() -> None:
    assert judge("model.safetensors", struct.pack("<Q", 3) + b"abc" + bytes(5)) == "broken"
    assert judge("model.safetensors", struct.pack("<Q", 1 << 60) + bytes(50)) == "broken"


def test_the_older_form_of_torch_and_other_files_do_not_tell() -> None:
    assert judge("checkpoint.pth", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.") == "unknown"
    assert judge("metrics.json", b'{"half":') == "unknown"


def test_a_zip_file_with_a_comment_is_whole() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"x")
        archive.comment = b"made by hand"
    assert judge("a.zip", file.getvalue()) == "whole"


def test_zeros_inside_a_tar_are_not_its_end() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("zeros")
        member.size = 9000
        archive.addfile(member, io.BytesIO(bytes(9000)))
    for cut in range(0, 9728, 512):
        assert judge("a.tar", file.getvalue()[:cut]) == "broken"
    assert judge("a.tar", file.getvalue()) == "whole"


def test_a_tar_with_long_names_and_large_numbers() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo("x" * 300)
        member.size, member.mtime = 3, 1 << 40
        archive.addfile(member, io.BytesIO(b"abc"))
    assert judge("a.tar", file.getvalue()) == "whole"
    large = bytearray(file.getvalue())
    large[124:136] = b"\x80" + (1 << 40).to_bytes(11, "big")
    assert judge("a.tar", bytes(large)) == "broken"
    large[124:136] = b"nonsense!!!!"
    assert judge("a.tar", bytes(large)) == "broken"


def test_an_index_names_its_shards() -> None:
    index = json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}).encode()
    assert missing_shards(index, ["m-1.safetensors"]) == ["m-2.safetensors"]
    assert missing_shards(index, ["m-1.safetensors", "m-2.safetensors"]) == []
    assert missing_shards(b"{half", []) == []
