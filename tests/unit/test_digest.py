"""Digests, checked against hashlib and against git's own numbers."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.digest import (
    BLOCK,
    git_blob_id,
    is_commit,
    is_sha256,
    sha256_bytes,
    sha256_file,
    sha256_stream,
)


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_a_stream_has_the_digest_of_its_whole(blocks: list[bytes]) -> None:
    whole = b"".join(blocks)
    assert sha256_stream(blocks) == (hashlib.sha256(whole).hexdigest(), len(whole))
    assert sha256_bytes(whole) == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 1])
def test_a_file_is_hashed_to_its_end(tmp_path: Path, size: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * size)
    assert sha256_file(path) == (hashlib.sha256(b"x" * size).hexdigest(), size)
    with path.open("rb") as file:
        expected = hashlib.sha1(b"blob %d\0" % size + b"x" * size).hexdigest()
        assert git_blob_id(file, size) == expected


def test_git_names_its_blobs_so() -> None:
    # `git hash-object` of the empty file and of "hello\n"
    assert git_blob_id(io.BytesIO(b""), 0) == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob_id(io.BytesIO(b"hello\n"), 6) == "ce013625030ba8dba906f756967f9e9ca394464a"


@pytest.mark.parametrize(
    ("text", "sha256", "commit"),
    [
        ("a" * 64, True, False),
        ("0" * 40, False, True),
        ("A" * 64, False, False),
        ("a" * 64 + "\n", False, False),
        ("0" * 40 + "\n", False, False),
        ("", False, False),
        ("g" * 40, False, False),
    ],
)
def test_which_texts_are_digests(text: str, sha256: bool, commit: bool) -> None:
    assert is_sha256(text) is sha256
    assert is_commit(text) is commit
