"""The contract of an origin as tests: every implementation inherits them and says how to build a lab."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from labsync.digest import sha256_bytes
from labsync.errors import IntegrityError, NotFoundError, UnavailableError
from labsync.filters import Filter
from labsync.places import Ref
from labsync.snapshot import FileEntry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from labsync.manifest.model import Artifact
    from labsync.origins.base import Origin

BIG = bytes(range(256)) * 12_345  # several blocks, and no round number of them
FILES: Mapping[str, bytes] = {
    "config.json": b'{"a": 1}\n',
    "model.safetensors": BIG,
    "empty.txt": b"",
    "-dash.txt": b"dash",
    "a b+c&d=e.txt": b"space",
    "100% %41.txt": b"percent",
    "sharp#.txt": b"sharp",
    "what?x=1.txt": b"question",
    "Grüße 世界.txt": b"unicode",
    "a::b.txt": b"colons",
    "deep/er/leaf.txt": b"leaf",
    "deep/-/[x]*.txt": b"glob",
}


@dataclass(frozen=True)
class Lab:
    """An origin, an artifact of it that exists, what it holds, and one that does not exist."""

    origin: Origin
    artifact: Artifact
    files: Mapping[str, bytes]
    missing: Artifact

    def ref(self, path: str) -> Ref:
        return Ref(self.artifact.origin, self.origin.resolve(self.artifact).revision, path)

    def entry(self, path: str) -> FileEntry:
        return FileEntry(path, sha256_bytes(self.files[path]), len(self.files[path]))

    @property
    def biggest(self) -> str:
        return max(self.files, key=lambda path: len(self.files[path]))

    def read(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Read a part of a file, and check that each block is as the contract promises."""
        got = bytearray()
        for block in self.origin.read(self.ref(path), self.entry(path), start, stop):
            assert 1 <= len(block) <= 1 << 20
            got += block
        return bytes(got)


class OriginContract:
    """Inherit, and give a fixture `lab`."""

    def test_the_listing_is_exactly_the_files_with_true_sizes_and_digests(self, lab: Lab) -> None:
        listing = lab.origin.resolve(lab.artifact)
        assert [file.path for file in listing.files] == sorted(lab.files, key=str.encode)
        for file in listing.files:
            assert file.size == len(lab.files[file.path])
            assert file.sha256 in {"", sha256_bytes(lab.files[file.path])}
        assert not listing.filtered
        assert not listing.skipped
        Snapshot.of(lab.entry(file.path) for file in listing.files)

    def test_listing_twice_gives_the_same(self, lab: Lab) -> None:
        assert lab.origin.resolve(lab.artifact) == lab.origin.resolve(lab.artifact)

    def test_every_file_is_read_whole(self, lab: Lab) -> None:
        for path, data in lab.files.items():
            assert lab.read(path) == data, path
            assert lab.read(path, 0, len(data)) == data, path

    def test_any_part_is_read_exactly(self, lab: Lab) -> None:
        data, size = lab.files[lab.biggest], len(lab.files[lab.biggest])
        spans = [(1, None), (size // 2, None), (size - 1, None), (0, 1), (5, 1_500_000), (size - 1, size)]
        for start, stop in spans:
            assert lab.read(lab.biggest, start, stop) == data[start:stop], (start, stop)

    def test_an_empty_part_is_empty(self, lab: Lab) -> None:
        size = len(lab.files[lab.biggest])
        for start, stop in ((size, None), (size, size), (7, 7), (0, 0)):
            assert lab.read(lab.biggest, start, stop) == b""

    def test_parts_read_at_once_are_the_file(self, lab: Lab) -> None:
        data, part = lab.files[lab.biggest], 300_000
        with ThreadPoolExecutor(6) as pool:
            parts = pool.map(
                lambda at: lab.read(lab.biggest, at, min(at + part, len(data))), range(0, len(data), part)
            )
            assert b"".join(parts) == data

    def test_closing_early_harms_nobody(self, lab: Lab) -> None:
        ref, entry = lab.ref(lab.biggest), lab.entry(lab.biggest)
        for stop in (None, 1_200_000):
            blocks = lab.origin.read(ref, entry, 0, stop)
            assert lab.files[lab.biggest].startswith(bytes(next(blocks)))
            blocks.close()
            assert list(blocks) == []
        assert lab.read(lab.biggest) == lab.files[lab.biggest]

    def test_a_longer_file_is_not_accepted(self, lab: Lab) -> None:
        shorter = replace(lab.entry(lab.biggest), size=len(lab.files[lab.biggest]) - 1)
        got = list[int]()
        with pytest.raises(IntegrityError):
            got.extend(map(len, lab.origin.read(lab.ref(lab.biggest), shorter)))
        assert sum(got) <= shorter.size

    def test_a_shorter_file_is_not_accepted(self, lab: Lab) -> None:
        longer = replace(lab.entry(lab.biggest), size=len(lab.files[lab.biggest]) + 1)
        with pytest.raises((UnavailableError, IntegrityError)):
            list(lab.origin.read(lab.ref(lab.biggest), longer))

    def test_an_unknown_size_takes_what_comes(self, lab: Lab) -> None:
        blocks = lab.origin.read(lab.ref(lab.biggest), FileEntry(lab.biggest, "", -1))
        assert b"".join(map(bytes, blocks)) == lab.files[lab.biggest]

    def test_a_missing_artifact_is_not_found(self, lab: Lab) -> None:
        with pytest.raises(NotFoundError) as caught:
            lab.origin.resolve(lab.missing)
        assert caught.value.hint


class FolderContract(OriginContract):
    """For origins with many files: filters and missing files."""

    def test_include_and_exclude_are_obeyed_and_told(self, lab: Lab) -> None:
        only = replace(lab.artifact, filter=Filter(("*.txt",), ("deep/",)))
        listing = lab.origin.resolve(only)
        paths = [file.path for file in listing.files]
        assert "empty.txt" in paths
        assert not {"config.json", "deep/er/leaf.txt"} & set(paths)
        assert listing.filtered

    def test_a_missing_file_is_not_found_once_it_is_asked_for(self, lab: Lab) -> None:
        ref = replace(lab.ref("config.json"), path="nothing.bin")
        for start, stop in ((0, None), (1, 3)):
            blocks = lab.origin.read(ref, FileEntry("nothing.bin", "", 4), start, stop)
            with pytest.raises(NotFoundError):
                next(blocks)
        with pytest.raises(NotFoundError):
            list(lab.origin.read(ref, FileEntry("nothing.bin", "", 0)))


class NetworkContract:
    """For origins behind a server: give a fixture `cut_off`, which makes it unreachable."""

    def test_an_unreachable_server_may_be_tried_again(self, lab: Lab, cut_off: Callable[[], None]) -> None:
        ref = lab.ref(lab.biggest)
        cut_off()
        with pytest.raises(UnavailableError) as listing:
            lab.origin.resolve(lab.artifact)
        blocks = lab.origin.read(ref, lab.entry(lab.biggest))
        with pytest.raises(UnavailableError) as reading:
            next(blocks)
        assert listing.value.retryable
        assert reading.value.retryable
