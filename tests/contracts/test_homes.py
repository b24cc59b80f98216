"""Every home passes the contract; what is special to plain trees and single files follows."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from labsync import atomic
from labsync.digest import sha256_bytes
from labsync.disk.hf_cache import HfCacheHome
from labsync.disk.tree import TreeHome
from labsync.errors import ConflictError, DiskError, RefusedError
from labsync.filters import Filter
from labsync.manifest.model import Artifact
from labsync.snapshot import FileEntry, Snapshot
from labsync.state import State
from tests.contracts.home_batch_contract import HomeBatchContract
from tests.contracts.home_contract import Bench, HomeContract, MakeHome, publish_one
from tests.fakes.hf_lock import hf_artifact, locked_from

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.disk.base import Home

RUNS = Artifact("results", "runs", path="outputs/runs")
SAM = Artifact(
    "checkpoints", "sam", origin="https://host/dir/sam%20h.pth?x=1", path="checkpoints/sam.pth", is_file=True
)


def make_tree(root: Path, state: State, contents: dict[str, bytes]) -> Home:
    return TreeHome(root, RUNS, state, root / ".labsync")


def make_hf(root: Path, state: State, contents: dict[str, bytes]) -> Home:
    locked = locked_from(contents)
    return HfCacheHome(hf_artifact(), locked, state, root / ".labsync", root.parent / "cache" / "hub")


class TestTreeHome(HomeContract, HomeBatchContract):
    @pytest.fixture
    def make_home(self) -> MakeHome:
        return make_tree


class TestHfCacheHome(HomeContract, HomeBatchContract):
    @pytest.fixture
    def make_home(self) -> MakeHome:
        return make_hf


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    root = tmp_path / "lab"
    root.mkdir()
    contents = {"a.txt": b"one", "deep/b.txt": b"two"}
    return Bench(root, State(root / ".labsync" / "labsync.sqlite"), make_tree, contents)


def folder(bench: Bench) -> Path:
    return bench.home.path


def entry_of(path: str, data: bytes, *, executable: bool = False) -> FileEntry:
    return FileEntry(path, sha256_bytes(data), len(data), executable)


def test_a_file_the_user_made_is_changed_and_finish_makes_it_known(bench: Bench) -> None:
    folder(bench).mkdir(parents=True)
    (folder(bench) / "a.txt").write_bytes(b"one")
    assert bench.states() == {"a.txt": "changed"}
    bench.home.finish(bench.snapshot)
    assert bench.states() == {"a.txt": "recorded"}


def test_finish_does_not_record_other_bytes(bench: Bench) -> None:
    folder(bench).mkdir(parents=True)
    (folder(bench) / "a.txt").write_bytes(b"mine")
    bench.home.finish(bench.snapshot)
    assert bench.states() == {"a.txt": "changed"}


def test_an_edit_is_changed_and_a_touch_is_not(bench: Bench) -> None:
    bench.fill()
    os.utime(folder(bench) / "a.txt", ns=(1, 1))
    (folder(bench) / "deep/b.txt").write_bytes(b"TWO")
    os.utime(folder(bench) / "deep/b.txt", ns=(1, 1))
    assert bench.states() == {"a.txt": "recorded", "deep/b.txt": "changed"}


def test_recorded_is_replaced_by_the_next_version(bench: Bench) -> None:
    bench.fill()
    bench.contents["a.txt"] = b"next"
    bench.publish("a.txt", "recorded")
    assert (folder(bench) / "a.txt").read_bytes() == b"next"
    assert bench.states()["a.txt"] == "recorded"
    assert bench.aside() == []


def test_a_touched_file_is_still_as_recorded(bench: Bench) -> None:
    bench.fill()
    os.utime(folder(bench) / "a.txt", ns=(1, 1))
    bench.contents["a.txt"] = b"next"
    bench.publish("a.txt", "recorded")
    assert (folder(bench) / "a.txt").read_bytes() == b"next"


def test_a_change_after_the_inventory_is_not_overwritten(bench: Bench) -> None:
    bench.fill()
    (folder(bench) / "a.txt").write_bytes(b"mine")
    os.utime(folder(bench) / "a.txt", ns=(1, 1))
    bench.contents["a.txt"] = b"next"
    with pytest.raises(ConflictError):
        bench.publish("a.txt", "recorded")
    assert (folder(bench) / "a.txt").read_bytes() == b"mine"


def test_force_sets_the_users_file_aside(bench: Bench) -> None:
    bench.fill()
    (folder(bench) / "a.txt").write_bytes(b"mine")
    bench.contents["a.txt"] = b"next"
    bench.publish("a.txt", "aside")
    assert (folder(bench) / "a.txt").read_bytes() == b"next"
    assert bench.aside() == [b"mine"]


def test_aside_works_where_no_second_name_can_be_made(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.fill()
    (folder(bench) / "a.txt").write_bytes(b"mine")

    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    bench.publish("a.txt", "aside")
    assert (folder(bench) / "a.txt").read_bytes() == b"one"
    assert bench.aside() == [b"mine"]


def test_the_executable_bit_is_set_before_the_file_is_visible_and_found_again(bench: Bench) -> None:
    entry = entry_of("run.sh", b"#!", executable=True)
    publish_one(bench.home, entry, bench.staged(b"#!"))
    assert (folder(bench) / "run.sh").stat().st_mode & 0o777 == 0o755
    assert bench.home.inventory(rehash=False).files["run.sh"].entry == entry
    bench.publish("a.txt")
    assert (folder(bench) / "a.txt").stat().st_mode & 0o777 == 0o644


def test_links_pipes_sockets_and_refused_names_are_skipped_with_the_reason(bench: Bench) -> None:
    bench.fill()
    here = folder(bench)
    (here / "link").symlink_to("a.txt")
    (here / "loop").symlink_to(".")
    os.mkfifo(here / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        cwd = os.open(".", os.O_RDONLY)
        try:
            os.chdir(here)  # a socket's address is short
            listener.bind("sock")
        finally:
            os.fchdir(cwd)
            os.close(cwd)
    (here / "new\nline").write_bytes(b"x")
    (here / os.fsdecode(b"bad\xff")).write_bytes(b"x")
    (here / ".labsync-stage").mkdir()
    (here / ".labsync-stage" / "x.part").write_bytes(b"x")
    inventory = bench.home.inventory(rehash=False)
    assert sorted(inventory.files) == ["a.txt", "deep/b.txt"]
    assert {item.path: item.reason for item in inventory.skipped} == {
        "link": "is a link",
        "loop": "is a link",
        "pipe": "is a pipe",
        "sock": "is a socket",
        "new\\nline": "its name has a control character",
        "bad\\udcff": "its name is not valid UTF-8",
    }


def test_hard_links_and_sparse_files_are_files(bench: Bench) -> None:
    bench.fill()
    os.link(folder(bench) / "a.txt", folder(bench) / "twin.txt")
    with (folder(bench) / "sparse.bin").open("wb") as file:
        file.truncate(3 << 20)
    files = bench.home.inventory(rehash=False).files
    assert files["twin.txt"].entry.sha256 == sha256_bytes(b"one")
    assert files["sparse.bin"].entry.sha256 == sha256_bytes(bytes(3 << 20))


def test_only_what_the_filter_keeps_counts(bench: Bench) -> None:
    bench.fill()
    (folder(bench) / "big.tmp").symlink_to("a.txt")
    artifact = Artifact("results", "runs", path="outputs/runs", filter=Filter(("*.txt",), ("deep/",)))
    home = TreeHome(bench.root, artifact, bench.state, bench.root / ".labsync")
    inventory = home.inventory(rehash=False)
    assert list(inventory.files) == ["a.txt"]
    assert inventory.skipped == ()


def test_a_link_in_the_way_is_refused_whatever_may_be_replaced(bench: Bench) -> None:
    folder(bench).mkdir(parents=True)
    outside = bench.root.parent / "outside.txt"
    outside.write_bytes(b"theirs")
    (folder(bench) / "a.txt").symlink_to(outside)
    (folder(bench) / "deep").symlink_to(bench.root.parent)
    for path in bench.contents:
        for how in ("nothing", "recorded", "aside"):
            with pytest.raises(RefusedError):
                bench.publish(path, how)
    assert outside.read_bytes() == b"theirs"
    assert not (bench.root.parent / "b.txt").exists()


def test_the_artifacts_folder_may_be_a_link_of_the_users(bench: Bench) -> None:
    elsewhere = bench.root.parent / "elsewhere"
    elsewhere.mkdir()
    folder(bench).parent.mkdir()
    folder(bench).symlink_to(elsewhere)
    bench.fill()
    assert (elsewhere / "deep" / "b.txt").read_bytes() == b"two"
    assert set(bench.states().values()) == {"recorded"}


def test_a_link_to_nothing_is_an_error_and_not_an_absent_artifact(bench: Bench) -> None:
    folder(bench).parent.mkdir()
    folder(bench).symlink_to(bench.root.parent / "unmounted")
    with pytest.raises(DiskError, match="link to nothing"):
        bench.home.inventory(rehash=False)


def test_a_file_where_the_folder_belongs_is_never_an_empty_inventory(bench: Bench) -> None:
    folder(bench).parent.mkdir()
    folder(bench).write_bytes(b"mine")
    with pytest.raises(DiskError):
        bench.home.inventory(rehash=False)
    with pytest.raises(ConflictError):
        bench.publish("a.txt", "aside")
    assert folder(bench).read_bytes() == b"mine"


def test_a_folder_that_cannot_be_read_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.fill()
    real = os.scandir

    def deny(path: str) -> os.ScandirIterator[str]:  # type: ignore[name-defined]
        if str(path).rstrip("/").endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(DiskError):
        bench.home.inventory(rehash=False)


@pytest.mark.parametrize("change", ["mode", "added", "pipe", "edited folder"])
def test_what_only_a_folder_can_show_leaves_no_identity(bench: Bench, change: str) -> None:
    bench.fill()
    place = folder(bench) / "a.txt"
    assert bench.home.identity() == bench.snapshot.id
    match change:
        case "mode":
            place.chmod(0o755)
        case "added":
            (folder(bench) / "deep" / "new.txt").write_bytes(b"")
        case "pipe":
            os.mkfifo(folder(bench) / "pipe")
        case "edited folder":
            (folder(bench) / "deep").rename(folder(bench) / "deeper")
    assert bench.home.identity() is None


def test_names_that_a_snapshot_refuses_have_no_identity(bench: Bench) -> None:
    bench.contents = {"a.txt": b"one", "deep/A.txt": b"two"}
    bench.fill()
    assert bench.home.identity() == bench.snapshot.id
    bench.contents["deep/a.txt"] = b"two"
    bench.publish("deep/a.txt")
    assert bench.home.identity() is None


def test_ours_and_empty_folders_do_not_count(bench: Bench) -> None:
    bench.fill()
    (folder(bench) / "empty").mkdir()
    (folder(bench) / ".labsync-stage").mkdir()
    (folder(bench) / ".labsync-stage" / "part").write_bytes(b"x")
    assert bench.home.identity() == bench.snapshot.id


def test_one_folder_is_looked_at_and_made_durable_once_for_all_its_files(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.contents = {f"f{i % 3}/{i}": b"%d" % i for i in range(100)}
    synced: list[str] = []
    batch, home, fsync_dir = bench.batch(bench.contents), bench.home, atomic.fsync_dir
    home.begin()

    def note(path: str) -> None:
        synced.append(os.path.basename(path))
        fsync_dir(path)

    checked: list[str] = []
    refuse_links = atomic.refuse_links

    def check(root: Path, path: str) -> bool:
        checked.append(path)
        return refuse_links(root, path)

    monkeypatch.setattr(atomic, "refuse_links", check)
    monkeypatch.setattr(atomic, "fsync_dir", note)
    assert not any(home.publish(batch))
    assert len(checked) == 3
    assert sorted(name for name in synced if name.startswith("f")) == ["f0", "f1", "f2"]


def test_what_could_not_be_recorded_is_an_error_and_healed_by_finish(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DiskError("no space left")

    batch, home = bench.batch(bench.contents), bench.home
    with monkeypatch.context() as patch:
        patch.setattr(bench.state, "record_all", full)
        assert [type(answer) for answer in home.publish(batch)] == [DiskError, DiskError]
    assert set(bench.states().values()) == {"changed"}
    home.finish(bench.snapshot)
    assert set(bench.states().values()) == {"recorded"}


def test_damage_stays_damage_when_its_digest_is_remembered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fill()
    bench.flip("a.txt")
    later = time.time_ns() + 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert bench.states()["a.txt"] == "damaged"
    monkeypatch.setattr("labsync.disk.hashing.hash_file", None)
    assert bench.states()["a.txt"] == "damaged"


def test_finish_takes_note_of_the_time_of_a_touched_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fill()
    os.utime(folder(bench) / "a.txt", ns=(1, 1))
    later = time.time_ns() + 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert bench.states()["a.txt"] == "recorded"
    bench.home.finish(bench.snapshot)
    bench.flip("a.txt")
    assert bench.states()["a.txt"] == "damaged"


def test_without_the_memory_files_count_as_changed_and_finish_knows_them_again(bench: Bench) -> None:
    bench.fill()
    bench.state = State(bench.root / ".labsync" / "another.sqlite")
    assert set(bench.states().values()) == {"changed"}
    bench.home.finish(bench.snapshot)
    assert set(bench.states().values()) == {"recorded"}


def single(bench: Bench) -> TreeHome:
    return TreeHome(bench.root, SAM, bench.state, bench.root / ".labsync")


def test_a_single_file_lives_under_its_path_and_is_named_by_the_url(bench: Bench) -> None:
    home, entry = single(bench), entry_of("sam h.pth", b"weights")
    assert not home.inventory(rehash=False).exists
    home.begin()
    publish_one(home, entry, bench.staged(b"weights"))
    assert not home.inventory(rehash=False).complete
    home.finish(Snapshot.of([entry]))
    inventory = home.inventory(rehash=False)
    assert {path: (found.entry, found.state) for path, found in inventory.files.items()} == {
        "sam h.pth": (entry, "recorded")
    }
    assert inventory.complete
    assert (bench.root / "checkpoints" / "sam.pth").read_bytes() == b"weights"
    assert home.source("sam h.pth") == home.path
    assert home.identity() == Snapshot.of([entry]).id
    home.path.write_bytes(b"WEIGHTS")
    assert home.identity() is None


def test_a_single_file_takes_no_other_entry(bench: Bench) -> None:
    with pytest.raises(RefusedError):
        publish_one(single(bench), entry_of("other.pth", b"x"), bench.staged(b"x"))


def test_a_link_in_place_of_a_single_file_is_skipped_and_never_written_through(bench: Bench) -> None:
    target = bench.root / "mine.pth"
    target.write_bytes(b"mine")
    (bench.root / "checkpoints").mkdir()
    single(bench).path.symlink_to(target)
    inventory = single(bench).inventory(rehash=False)
    assert (dict(inventory.files), len(inventory.skipped)) == ({}, 1)
    assert single(bench).identity() is None
    with pytest.raises(RefusedError):
        publish_one(single(bench), entry_of("sam h.pth", b"x"), bench.staged(b"x"), "aside")
    assert target.read_bytes() == b"mine"


def test_the_stage_is_on_the_file_system_of_the_artifact(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench.home.stage == bench.root / ".labsync" / "stage"

    def other_device(path: Path) -> int:
        return 2 if ".labsync" in path.parts else 1

    monkeypatch.setattr("labsync.disk.tree.device_of", other_device)
    assert bench.home.stage == bench.root / ".labsync-stage"
    assert bench.home.stage.is_dir()
