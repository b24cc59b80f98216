"""The contract of an origin as tests: every implementation inherits them and says how to build a lab."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from labsync.digest import sha256_bytes
from labsync.errors import (
    DiskError,
    IntegrityError,
    LabsyncError,
    NotFoundError,
    UnavailableError,
)
from labsync.filters import Filter
from labsync.places import Ref
from labsync.snapshot import FileEntry, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

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


class Counter:
    """An `Advance` that adds up, and calls `then` each time."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.total = 0
        self.then = then

    def __call__(self, count: int) -> None:
        self.total += count
        self.then()


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

    def test_every_file_is_read_whole(self, lab: Lab, tmp_path: Path) -> None:
        for path, data in lab.files.items():
            advance = Counter()
            into = tmp_path / "part"
            into.write_bytes(b"stale bytes of another file" * 999)
            lab.origin.read(lab.ref(path), lab.entry(path), into, 0, advance)
            assert into.read_bytes() == data, path
            assert advance.total == len(data)

    def test_reading_continues_in_the_middle(self, lab: Lab, tmp_path: Path) -> None:
        data, into = lab.files[lab.biggest], tmp_path / "part"
        for start in (1, len(data) // 2, len(data) - 1):
            advance = Counter()
            into.write_bytes(data[:start])
            lab.origin.read(lab.ref(lab.biggest), lab.entry(lab.biggest), into, start, advance)
            assert into.read_bytes() == data
            assert advance.total == len(data) - start

    def test_what_the_part_holds_behind_the_start_does_not_stay(self, lab: Lab, tmp_path: Path) -> None:
        data, into = lab.files[lab.biggest], tmp_path / "part"
        into.write_bytes(data[:5] + b"?" * len(data))
        lab.origin.read(lab.ref(lab.biggest), lab.entry(lab.biggest), into, 5, Counter())
        assert into.read_bytes() == data

    def test_reading_at_the_end_changes_nothing(self, lab: Lab, tmp_path: Path) -> None:
        data, into = lab.files[lab.biggest], tmp_path / "part"
        into.write_bytes(data)
        advance = Counter()
        lab.origin.read(lab.ref(lab.biggest), lab.entry(lab.biggest), into, len(data), advance)
        assert into.read_bytes() == data
        assert advance.total == 0

    def test_bytes_are_in_the_file_when_advance_is_called(self, lab: Lab, tmp_path: Path) -> None:
        into, seen = tmp_path / "part", list[int]()
        advance = Counter(lambda: seen.append(into.stat().st_size))
        lab.origin.read(lab.ref(lab.biggest), lab.entry(lab.biggest), into, 0, advance)
        assert seen == sorted(seen)
        assert seen[-1] == advance.total == len(lab.files[lab.biggest])

    def test_what_advance_raises_passes_through(self, lab: Lab, tmp_path: Path) -> None:
        class StopHereError(Exception):
            pass

        def stop() -> None:
            raise StopHereError

        with pytest.raises(StopHereError):
            lab.origin.read(lab.ref(lab.biggest), lab.entry(lab.biggest), tmp_path / "part", 0, Counter(stop))

    def test_a_longer_file_is_never_written_past_its_size(self, lab: Lab, tmp_path: Path) -> None:
        shorter = replace(lab.entry(lab.biggest), size=len(lab.files[lab.biggest]) - 1)
        with pytest.raises(IntegrityError):
            lab.origin.read(lab.ref(lab.biggest), shorter, tmp_path / "part", 0, Counter())
        if (tmp_path / "part").exists():
            assert (tmp_path / "part").stat().st_size <= shorter.size

    def test_a_shorter_file_is_not_accepted(self, lab: Lab, tmp_path: Path) -> None:
        longer = replace(lab.entry(lab.biggest), size=len(lab.files[lab.biggest]) + 1)
        with pytest.raises(UnavailableError):
            lab.origin.read(lab.ref(lab.biggest), longer, tmp_path / "part", 0, Counter())

    def test_an_unknown_size_takes_what_comes(self, lab: Lab, tmp_path: Path) -> None:
        unknown = FileEntry(lab.biggest, "", -1)
        lab.origin.read(lab.ref(lab.biggest), unknown, tmp_path / "part", 0, Counter())
        assert (tmp_path / "part").read_bytes() == lab.files[lab.biggest]

    def test_an_unwritable_target_is_a_disk_error(self, lab: Lab, tmp_path: Path) -> None:
        with pytest.raises(DiskError):
            lab.origin.read(lab.ref(lab.biggest), lab.entry(lab.biggest), tmp_path / "no/part", 0, Counter())

    def test_a_missing_artifact_is_not_found(self, lab: Lab) -> None:
        with pytest.raises(NotFoundError) as caught:
            lab.origin.resolve(lab.missing)
        assert caught.value.hint

    def test_two_threads_read_at_once(self, lab: Lab, tmp_path: Path) -> None:
        ref, entry, errors = lab.ref(lab.biggest), lab.entry(lab.biggest), list[LabsyncError]()

        def read(number: int) -> None:
            try:
                lab.origin.read(ref, entry, tmp_path / str(number), 0, Counter())
            except LabsyncError as error:
                errors.append(error)

        threads = [threading.Thread(target=read, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert all((tmp_path / str(n)).read_bytes() == lab.files[lab.biggest] for n in range(4))


class FolderContract(OriginContract):
    """For origins with many files: filters and missing files."""

    def test_include_and_exclude_are_obeyed_and_told(self, lab: Lab) -> None:
        only = replace(lab.artifact, filter=Filter(("*.txt",), ("deep/",)))
        listing = lab.origin.resolve(only)
        paths = [file.path for file in listing.files]
        assert "empty.txt" in paths
        assert not {"config.json", "deep/er/leaf.txt"} & set(paths)
        assert listing.filtered

    def test_a_missing_file_is_not_found(self, lab: Lab, tmp_path: Path) -> None:
        ref = replace(lab.ref("config.json"), path="nothing.bin")
        with pytest.raises(NotFoundError):
            lab.origin.read(ref, FileEntry("nothing.bin", "", 4), tmp_path / "part", 0, Counter())


class NetworkContract:
    """For origins behind a server: give a fixture `cut_off`, which makes it unreachable."""

    def test_an_unreachable_server_may_be_tried_again(
        self, lab: Lab, cut_off: Callable[[], None], tmp_path: Path
    ) -> None:
        ref = lab.ref(lab.biggest)
        cut_off()
        with pytest.raises(UnavailableError) as listing:
            lab.origin.resolve(lab.artifact)
        with pytest.raises(UnavailableError) as reading:
            lab.origin.read(ref, lab.entry(lab.biggest), tmp_path / "part", 0, Counter())
        assert listing.value.retryable
        assert reading.value.retryable
