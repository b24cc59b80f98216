"""When nothing has changed: told by one walk and one listing, and exactly what the closer look would tell."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from labsync.errors import DiskError, InvalidError
from labsync.lock import Listing, Lock, LockedArtifact, LockedFile, inputs_digest
from labsync.manifest.parse import load_manifest
from labsync.mirrors.base import Head, HeadName, Index, Located
from labsync.mirrors.memory import MemoryMirror
from labsync.names import ArtifactName
from labsync.places import Found, Inventory
from labsync.settings import Options
from labsync.snapshot import FileEntry, Snapshot
from labsync.steps.advice import advise
from labsync.steps.goals import unchanged
from labsync.steps.lab import Lab
from labsync.steps.status import examine

if TYPE_CHECKING:
    from labsync.disk.base import Home
    from labsync.places import FoundState

MANIFEST = """
version: 1
project: p
mirror: {url: "s3://bucket/p"}
datasets:
  d: {origin: "s3://data/d/", path: d, mirror: true}
results:
  r: {path: r}
checkpoints:
  c: {path: c}
"""
D, R, C = ArtifactName("datasets/d"), ArtifactName("results/r"), ArtifactName("checkpoints/c")
MADE = (R, C)


def entry(path: str, content: str) -> FileEntry:
    return FileEntry(path, hashlib.sha256(content.encode()).hexdigest(), len(content))


ONE = Snapshot.of([entry("u/a", "1"), entry("u/b", "22")])
TWO = Snapshot.of([entry("u/a", "1"), entry("u/b", "333")])


def unread() -> tuple[tuple[LockedFile, ...], Snapshot]:
    raise InvalidError("the listing is damaged")


class Disk:
    """A home that has `snapshot`, and knows so at once unless it is `unsure`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.state: FoundState = "recorded"
        self.unsure = False
        self.inventories = 0

    def identity(self) -> str | None:
        return None if self.unsure else self.snapshot.id

    def inventory(self, *, rehash: bool) -> Inventory:
        self.inventories += 1
        return Inventory({entry.path: Found(entry, self.state) for entry in self.snapshot})


class SmallLab(Lab):
    """A lab with a mirror in memory and one disk for all artifacts."""

    def __init__(self, root: Path, **options: bool) -> None:
        path = root / "labsync.yaml"
        path.write_text(MANIFEST, "utf-8")
        super().__init__(load_manifest(path), Options(**options), lambda event: None)  # type: ignore[arg-type]
        self.disk = Disk(ONE)
        self.memory = MemoryMirror()
        self.__dict__["mirror"] = self.memory
        artifact = self.manifest.by_name[D]
        files = Listing(ONE.id, len(ONE), ONE.size, unread)
        locked = LockedArtifact(D, inputs_digest(artifact), "s3://data/d/", files=files)
        self.use_lock(Lock.of([replace(locked, skipped=(("link", "is a link"),))]))

    def home(self, artifact: object) -> Home:
        return cast("Home", self.disk)

    def publish(self, name: HeadName, snapshot: Snapshot, expected: Head | None = None) -> Head:
        files = tuple(Located(e, f"{name.artifact}/batch/{e.path}") for e in snapshot)
        parent = expected.index if expected else ""
        head = self.memory.publish(name, Index(name.artifact, files, parent=parent), expected)
        self.view.refresh()
        return head

    def push(self, name: ArtifactName, snapshot: Snapshot = ONE) -> Head:
        """Publish a made artifact and take note of it, as a push does."""
        head = self.publish(HeadName(name), snapshot)
        self.set_base(self.manifest.by_name[name], snapshot)
        return head


@pytest.fixture
def lab(tmp_path: Path) -> SmallLab:
    return SmallLab(tmp_path)


def test_a_sourced_artifact_is_known_without_its_listing_or_index(lab: SmallLab) -> None:
    lab.publish(HeadName.sourced(D, ONE.id), ONE)
    artifact = lab.manifest.by_name[D]
    assert unchanged(lab, artifact)
    stand = examine(lab, artifact)
    report = stand.report
    assert (report.disk, report.mirror, report.snapshot) == ("ok", "ok", ONE.id)
    assert (report.files, report.bytes, report.reason) == (2, 3, "")
    assert [skipped.path for skipped in stand.skipped] == ["datasets/d/link"]
    assert not stand.errors
    assert lab.disk.inventories == 0
    assert (lab.memory.requests().LIST, lab.memory.requests().GET) == (1, 1)  # the head, once


@pytest.mark.parametrize("in_mirror", [True, False])
@pytest.mark.parametrize("name", [D, R, C])
def test_the_short_look_tells_what_the_long_one_does(
    tmp_path: Path, name: ArtifactName, in_mirror: bool
) -> None:
    lab = SmallLab(tmp_path)
    artifact = lab.manifest.by_name[name]
    if in_mirror:
        lab.publish(HeadName.sourced(D, ONE.id) if name == D else HeadName(name), ONE)
    short = examine(lab, artifact)
    looked = lab.disk.inventories
    lab.disk.unsure = True
    if lab.lock is not None:
        files = tuple(LockedFile(e) for e in ONE)
        lab.use_lock(Lock.of([replace(lab.lock.artifacts[D], files=files)]))
    assert examine(lab, artifact) == short
    assert looked == (0 if in_mirror or name == D else 1)
    assert lab.disk.inventories == looked + 1


def test_an_unsure_or_different_disk_is_looked_at_closely(lab: SmallLab) -> None:
    lab.push(R)
    artifact = lab.manifest.by_name[R]
    lab.disk.snapshot = TWO
    assert not unchanged(lab, artifact)
    assert examine(lab, artifact).report.disk == "ahead"
    lab.disk.snapshot, lab.disk.unsure = ONE, True
    assert not unchanged(lab, artifact)
    assert examine(lab, artifact).report.disk == "ok"
    assert lab.disk.inventories == 2


def test_a_listing_that_is_needed_and_damaged_is_reported(lab: SmallLab) -> None:
    lab.disk.snapshot = TWO
    stand = examine(lab, lab.manifest.by_name[D])
    assert stand.report.disk == "failed"
    assert [error.code for error in stand.errors] == [3]


def test_rehashing_never_takes_the_short_look(lab: SmallLab) -> None:
    lab.push(R)
    examine(lab, lab.manifest.by_name[R], rehash=True)
    assert lab.disk.inventories == 1


def test_a_caller_that_has_just_looked_spares_the_walk(
    lab: SmallLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.push(R)

    def walk() -> str:
        raise DiskError("walked again")

    monkeypatch.setattr(lab.disk, "identity", walk)
    for name in (R, D):
        artifact = lab.manifest.by_name[name]
        assert examine(lab, artifact).report.disk == "failed"
        assert examine(lab, artifact, unchanged=True).report.disk == "ok"


def test_an_artifact_without_files_has_nothing_made_yet(lab: SmallLab) -> None:
    lab.disk.snapshot = Snapshot.of([])
    lab.push(R, lab.disk.snapshot)
    assert examine(lab, lab.manifest.by_name[R]).report.reason == "nothing made yet"


def test_made_counts_are_read_from_the_index_once(lab: SmallLab) -> None:
    head = lab.push(R)
    assert examine(lab, lab.manifest.by_name[R]).report.files == 2
    del lab.memory.objects[f".labsync/index/{head.index}.jsonl.zst"]
    lab.state.delete("index", head.index)
    lab.__dict__.pop("view")
    report = examine(lab, lab.manifest.by_name[R]).report
    assert (report.files, report.bytes) == (2, 3)


@pytest.mark.parametrize("name", MADE)
def test_a_pushed_artifact_is_unchanged(lab: SmallLab, name: ArtifactName) -> None:
    lab.push(name)
    assert unchanged(lab, lab.manifest.by_name[name])
    assert lab.memory.requests().GET == 1


def test_without_a_head_or_with_a_newer_one_there_is_something_to_do(lab: SmallLab) -> None:
    artifact = lab.manifest.by_name[R]
    assert not unchanged(lab, artifact)
    head = lab.push(R)
    assert unchanged(lab, artifact)
    lab.publish(HeadName(R), TWO, head)
    assert not unchanged(lab, artifact)


def test_the_same_files_in_a_mirror_not_seen_before_are_to_be_noted(lab: SmallLab) -> None:
    artifact = lab.manifest.by_name[R]
    head = lab.publish(HeadName(R), ONE)
    assert not unchanged(lab, artifact)  # no base
    lab.set_base(artifact, TWO)
    assert not unchanged(lab, artifact)  # another base
    lab.set_base(artifact, ONE)
    assert unchanged(lab, artifact)
    lab.publish(HeadName(R), ONE, head)  # a new index of the same snapshot
    assert not unchanged(lab, artifact)


def test_an_open_conflict_is_no_rest_and_a_settled_one_is(lab: SmallLab) -> None:
    artifact = lab.manifest.by_name[R]
    lab.push(R)
    loser = lab.publish(HeadName.conflict(R, TWO.id), TWO)
    assert not unchanged(lab, artifact)
    assert examine(lab, artifact).report.mirror == "conflict"
    lab.settle(loser)
    assert unchanged(lab, artifact)
    looked = lab.disk.inventories
    assert examine(lab, artifact).report.mirror == "ok"
    assert lab.disk.inventories == looked


def test_a_sourced_artifact_must_be_mirrored_only_where_that_is_asked(lab: SmallLab) -> None:
    artifact = lab.manifest.by_name[D]
    assert unchanged(lab, artifact, mirrored=False)
    assert not unchanged(lab, artifact)
    lab.publish(HeadName.sourced(D, TWO.id), TWO)
    assert not unchanged(lab, artifact)
    lab.publish(HeadName.sourced(D, ONE.id), ONE)
    assert unchanged(lab, artifact)


def test_an_abbreviation_is_no_evidence(lab: SmallLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.publish(HeadName.sourced(D, ONE.id), ONE)
    other = ONE.id[:12] + "0" * 52
    assert lab.lock is not None
    lab.use_lock(Lock.of([replace(lab.lock.artifacts[D], files=Listing(other, 2, 3, unread))]))
    monkeypatch.setattr(lab.disk, "identity", lambda: other)
    artifact = lab.manifest.by_name[D]
    assert unchanged(lab, artifact, mirrored=False)
    assert not unchanged(lab, artifact)
    assert examine(lab, artifact).report.mirror == "missing"


def test_damage_in_the_mirror_keeps_its_own_artifact_from_resting(lab: SmallLab) -> None:
    lab.push(R)
    lab.publish(HeadName.sourced(D, ONE.id), ONE)
    lab.view.condemn(frozenset({"datasets/d/batch/u/a"}))
    assert not unchanged(lab, lab.manifest.by_name[D])
    assert examine(lab, lab.manifest.by_name[D]).report.mirror == "behind"
    assert unchanged(lab, lab.manifest.by_name[R])


def test_an_upload_that_was_not_completed_is_something_to_do(lab: SmallLab) -> None:
    lab.push(R)
    artifact = lab.manifest.by_name[R]
    lab.state.multipart(lab.memory_key(artifact)).begin("results/r/batch/x", "0" * 64, "upload", 1)
    assert not unchanged(lab, artifact)


def test_offline_a_remote_mirror_is_no_evidence(tmp_path: Path) -> None:
    lab = SmallLab(tmp_path, offline=True)
    assert unchanged(lab, lab.manifest.by_name[D], mirrored=False)
    assert not unchanged(lab, lab.manifest.by_name[D])
    assert not unchanged(lab, lab.manifest.by_name[R])
    assert examine(lab, lab.manifest.by_name[D]).report.mirror == "off"
    assert lab.memory.requests().LIST == 0


def test_with_an_embedded_mirror_all_that_was_made_is_at_risk_without_another_look(
    lab: SmallLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.push(R)
    monkeypatch.setattr(SmallLab, "mirror_is_embedded", True)
    advice = advise(lab, [examine(lab, lab.manifest.by_name[R])])
    assert (advice.at_risk_files, advice.at_risk_bytes, advice.at_risk) == (2, 3, (R,))
    assert lab.disk.inventories == 0


def test_what_is_not_pushed_is_counted_in_one_look(lab: SmallLab) -> None:
    for name in MADE:
        lab.push(name)
    lab.disk.snapshot, lab.disk.state = TWO, "changed"
    advice = advise(lab, [examine(lab, lab.manifest.by_name[name]) for name in MADE])
    assert (advice.at_risk_files, advice.at_risk_bytes, advice.at_risk) == (2, 6, MADE)
    assert lab.disk.inventories == 2
    lab.publish(HeadName.conflict(R, TWO.id), TWO)
    advice = advise(lab, [examine(lab, lab.manifest.by_name[name]) for name in MADE])
    assert (advice.at_risk_files, advice.at_risk) == (1, (C,))  # the loser of a conflict is kept
