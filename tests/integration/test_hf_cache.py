"""The Hugging Face cache as labsync fills it, judged offline by huggingface_hub and transformers."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync import process
from labsync.digest import sha256_bytes
from labsync.disk.hf_cache import HfCacheHome, hf_cache_dir
from labsync.errors import ConflictError, RefusedError
from labsync.manifest.model import Artifact
from labsync.snapshot import Snapshot
from labsync.state import State
from tests.contracts.home_contract import publish_one
from tests.fakes.hf_lock import COMMIT, hf_artifact, locked_from

if TYPE_CHECKING:
    from labsync.lock import LockedArtifact
    from labsync.places import Replace

OTHER = "f" * 40
CONTENTS = {
    "config.json": json.dumps({"model_type": "bert", "hidden_size": 8}).encode(),
    "sub/weights.safetensors": b"weights" * 1000,
    "empty.txt": b"",
}


@dataclass
class Cache:
    root: Path
    artifact: Artifact
    locked: LockedArtifact
    state: State
    contents: dict[str, bytes]

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def repo(self) -> Path:
        return self.cache / "models--org--name"

    @property
    def home(self) -> HfCacheHome:
        return HfCacheHome(self.artifact, self.locked, self.state, self.root / ".labsync", self.cache)

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot.of(file.entry for file in self.locked.files)

    def publish(self, path: str, how: Replace = "nothing") -> None:
        staged = self.home.stage / "part"
        staged.write_bytes(self.contents[path])
        publish_one(self.home, self.snapshot.by_path[path], staged, how)

    def fill(self) -> None:
        self.home.begin()
        for path in self.contents:
            self.publish(path)
        self.home.finish(self.snapshot)

    def lock(self, contents: dict[str, bytes], commit: str) -> None:
        self.contents = contents
        self.locked = locked_from(contents, commit=commit)

    def states(self) -> dict[str, str]:
        return {path: found.state for path, found in self.home.inventory(rehash=False).files.items()}

    def offline(self, code: str) -> str:
        env = {**os.environ, "HF_HUB_CACHE": str(self.cache), "HF_HUB_OFFLINE": "1"}
        done = process.run([sys.executable, "-c", code], env=env, timeout=200)
        assert done.returncode == 0, done.error_text
        return done.stdout.decode().strip().splitlines()[-1]


@pytest.fixture
def box(tmp_path: Path) -> Cache:
    return Cache(tmp_path, hf_artifact(), locked_from(CONTENTS), State(Path(":memory:")), dict(CONTENTS))


HUB = """
import json
from pathlib import Path
from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache
folder = snapshot_download("org/name", local_files_only=True)
info = scan_cache_dir()
print(json.dumps({
    "folder": folder,
    "config": try_to_load_from_cache("org/name", "config.json"),
    "weights": Path(folder, "sub/weights.safetensors").stat().st_size,
    "warnings": [str(w) for w in info.warnings],
    "revisions": [[r.commit_hash, sorted(r.refs), r.nb_files] for repo in info.repos for r in repo.revisions],
}))
"""


def test_huggingface_hub_takes_it_for_its_own(box: Cache) -> None:
    box.fill()
    seen = json.loads(box.offline(HUB))
    assert seen == {
        "folder": str(box.home.path),
        "config": str(box.home.path / "config.json"),
        "weights": 7000,
        "warnings": [],
        "revisions": [[COMMIT, ["main"], 3]],
    }


def test_transformers_loads_from_it_by_name_and_by_commit(box: Cache) -> None:
    box.fill()
    code = """
from transformers import AutoConfig
sizes = [AutoConfig.from_pretrained("org/name", **by).hidden_size for by in ({}, {"revision": "%s"})]
print(sizes)
"""
    assert box.offline(code % COMMIT) == "[8, 8]"


def test_with_the_listing_a_missing_file_is_noticed_offline(box: Cache) -> None:
    box.fill()
    (box.home.path / "sub" / "weights.safetensors").unlink()
    code = """
from huggingface_hub import snapshot_download
try:
    print(snapshot_download("org/name", local_files_only=True))
except Exception as error:
    print(type(error).__name__)
"""
    assert box.offline(code) == "IncompleteSnapshotError"
    assert not box.home.inventory(rehash=False).complete
    box.home.finish(box.snapshot)
    assert box.offline(code) == str(box.home.path)


def test_a_part_of_a_repository_has_no_listing_and_loads_all_the_same(box: Cache) -> None:
    box.locked = locked_from(CONTENTS, filtered=True)
    box.fill()
    assert not (box.repo / "trees").exists()
    assert box.home.inventory(rehash=False).complete
    assert json.loads(box.offline(HUB))["folder"] == str(box.home.path)


def test_the_layout_is_the_hubs(box: Cache) -> None:
    box.locked = locked_from(CONTENTS, xet="a" * 64)
    box.fill()
    weights = box.home.path / "sub" / "weights.safetensors"
    digest = sha256_bytes(CONTENTS["sub/weights.safetensors"])
    assert str(weights.readlink()) == f"../../../blobs/{digest}"
    assert len((box.home.path / "config.json").readlink().name) == 40
    assert (box.repo / "refs" / "main").read_bytes() == COMMIT.encode()
    listed = json.loads((box.repo / "trees" / f"{COMMIT}.json").read_bytes())
    assert listed["format_version"] == 1
    assert listed["files"]["sub/weights.safetensors"] == {
        "size": 7000,
        "blob_id": box.locked.files[-1].oid,
        "lfs_sha256": digest,
        "lfs_size": 7000,
        "xet_hash": "a" * 64,
    }
    assert listed["files"]["config.json"].keys() == {"size", "blob_id"}


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("hf://org/name", "models--org--name"),
        ("hf://gpt2", "models--gpt2"),
        ("hf://datasets/org/name", "datasets--org--name"),
    ],
)
def test_the_folder_is_named_as_the_hub_names_it(box: Cache, origin: str, name: str) -> None:
    box.artifact = hf_artifact(origin)
    assert box.home.path == box.cache / name / "snapshots" / COMMIT


def test_a_branch_has_its_own_ref_and_a_commit_none(box: Cache) -> None:
    box.artifact = hf_artifact(revision="refs/pr/1")
    box.fill()
    assert (box.repo / "refs" / "refs" / "pr" / "1").read_bytes() == COMMIT.encode()
    box.artifact = hf_artifact(revision=COMMIT)
    box.home.finish(box.snapshot)
    assert not (box.repo / "refs" / "main").exists()
    assert box.home.inventory(rehash=False).complete


def test_a_ref_that_points_elsewhere_is_not_moved(box: Cache) -> None:
    (box.repo / "refs").mkdir(parents=True)
    (box.repo / "refs" / "main").write_text(OTHER)
    with pytest.raises(ConflictError) as caught:
        box.fill()
    assert str(box.repo / "refs" / "main") in caught.value.hint
    assert (box.repo / "refs" / "main").read_text() == OTHER
    assert not box.home.inventory(rehash=False).complete
    assert (box.home.path / "config.json").read_bytes() == CONTENTS["config.json"]


def test_a_ref_that_labsync_wrote_follows_the_lock(box: Cache) -> None:
    box.fill()
    box.lock({**CONTENTS, "config.json": b"{}"}, OTHER)
    box.fill()
    assert (box.repo / "refs" / "main").read_text() == OTHER
    assert (box.repo / "snapshots" / COMMIT / "config.json").read_bytes() == CONTENTS["config.json"]
    assert (box.repo / "snapshots" / OTHER / "config.json").read_bytes() == b"{}"


def test_a_newline_in_the_ref_is_repaired(box: Cache) -> None:
    box.fill()
    (box.repo / "refs" / "main").write_text(f"{COMMIT}\n")
    assert not box.home.inventory(rehash=False).complete
    box.home.finish(box.snapshot)
    assert (box.repo / "refs" / "main").read_text() == COMMIT


def test_neither_ref_nor_listing_while_a_file_is_missing(box: Cache) -> None:
    box.home.begin()
    box.publish("config.json")
    box.home.finish(box.snapshot)
    assert (box.home.path / "config.json").exists()
    assert not (box.repo / "refs").exists()
    assert not (box.repo / "trees").exists()
    assert not box.home.inventory(rehash=False).complete


def test_files_of_equal_bytes_share_a_blob(box: Cache) -> None:
    box.lock({"a.json": b"same", "b.json": b"same"}, COMMIT)
    box.fill()
    assert len(list((box.repo / "blobs").iterdir())) == 1
    assert list(box.home.stage.iterdir()) == []
    assert box.states() == {"a.json": "recorded", "b.json": "recorded"}


def test_a_wrong_blob_is_damage_whatever_its_mtime(box: Cache) -> None:
    box.fill()
    box.home.source("config.json").write_bytes(b"edited")
    assert box.states()["config.json"] == "damaged"
    box.publish("config.json", "aside")
    assert box.states()["config.json"] == "recorded"


def test_a_real_file_with_the_right_bytes_is_as_good_as_a_link(box: Cache) -> None:
    for path, data in CONTENTS.items():
        place = box.home.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    assert set(box.states().values()) == {"recorded"}
    box.home.finish(box.snapshot)
    assert box.home.inventory(rehash=False).complete
    assert not (box.home.path / "config.json").is_symlink()
    assert json.loads(box.offline(HUB))["warnings"] == []


def test_a_real_file_with_other_bytes_is_the_users(box: Cache) -> None:
    box.fill()
    mine = box.home.path / "config.json"
    mine.unlink()
    mine.write_bytes(b"mine")
    assert box.states()["config.json"] == "changed"
    box.home.finish(box.snapshot)
    assert mine.read_bytes() == b"mine"
    with pytest.raises(ConflictError):
        box.publish("config.json", "recorded")
    box.publish("config.json", "aside")
    assert box.states()["config.json"] == "recorded"
    assert mine.is_symlink()
    kept = [file.read_bytes() for file in (box.root / ".labsync" / "aside").rglob("*") if file.is_file()]
    assert kept == [b"mine"]


def test_damage_to_a_real_file_that_was_known_is_damage(box: Cache) -> None:
    box.home.path.mkdir(parents=True)
    box.lock({"config.json": b"{}"}, COMMIT)
    place = box.home.path / "config.json"
    place.write_bytes(b"{}")
    box.home.finish(box.snapshot)
    before = place.stat()
    place.write_bytes(b"[]")
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert box.states() == {"config.json": "damaged"}


def test_the_shared_store_of_newer_caches_is_read_through(box: Cache) -> None:
    box.fill()
    blob = box.home.source("sub/weights.safetensors")
    store = box.cache / "blobs" / "ab" / ("ab" * 32)
    store.parent.mkdir(parents=True)
    blob.rename(store)
    blob.symlink_to(os.path.relpath(store, blob.parent))
    assert box.states()["sub/weights.safetensors"] == "recorded"
    assert box.home.inventory(rehash=True).complete
    store.write_bytes(b"wrong")
    assert box.states()["sub/weights.safetensors"] == "damaged"
    box.publish("sub/weights.safetensors", "aside")
    assert box.states()["sub/weights.safetensors"] == "recorded"
    assert not blob.is_symlink()
    assert store.read_bytes() == b"wrong"


def test_a_blob_that_dangles_after_a_copy_is_missing_and_can_be_restored(box: Cache) -> None:
    box.fill()
    blob = box.home.source("sub/weights.safetensors")
    blob.unlink()
    blob.symlink_to("../../blobs/ab/gone")
    assert "sub/weights.safetensors" not in box.states()
    box.publish("sub/weights.safetensors")
    box.home.finish(box.snapshot)
    assert box.home.inventory(rehash=False).complete


def test_a_link_to_another_place_of_the_cache_is_put_right(box: Cache) -> None:
    box.fill()
    link = box.home.path / "config.json"
    link.unlink()
    link.symlink_to("../../blobs/gone")
    assert not box.home.inventory(rehash=False).complete
    box.home.finish(box.snapshot)
    assert link.read_bytes() == CONTENTS["config.json"]


@pytest.mark.fault(29)
def test_a_link_out_of_the_cache_is_refused(box: Cache) -> None:
    box.fill()
    outside = box.root / "mine.json"
    outside.write_bytes(b"mine")
    link = box.home.path / "config.json"
    link.unlink()
    link.symlink_to(outside)
    with pytest.raises(RefusedError):
        box.home.finish(box.snapshot)
    assert (link.readlink(), outside.read_bytes()) == (outside, b"mine")


def test_a_repository_folder_that_is_a_link_is_not_written_through(box: Cache) -> None:
    elsewhere = box.root / "elsewhere"
    elsewhere.mkdir()
    box.cache.mkdir()
    box.repo.symlink_to(elsewhere)
    with pytest.raises(RefusedError):
        box.publish("config.json")
    assert list(elsewhere.iterdir()) == []


def test_what_is_not_in_the_lock_is_refused(box: Cache) -> None:
    box.fill()
    entry = box.snapshot.by_path["config.json"]
    with pytest.raises(RefusedError):
        publish_one(
            box.home, type(entry)("other.json", entry.sha256, entry.size), box.home.source("config.json")
        )


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"XDG_CACHE_HOME": "/x/cache"},
        {"HF_HOME": "/x/hf"},
        {"HF_HOME": "~/hf"},
        {"HF_HOME": "/x/hf", "HUGGINGFACE_HUB_CACHE": "/x/legacy"},
        {"HF_HOME": "/x/hf", "HF_HUB_CACHE": "$HOME/own"},
    ],
)
def test_the_cache_folder_is_the_one_huggingface_hub_uses(env: dict[str, str], tmp_path: Path) -> None:
    whole = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], **env}
    code = "from huggingface_hub.constants import HF_HUB_CACHE; print(HF_HUB_CACHE)"
    done = process.run([sys.executable, "-c", code], env=whole)
    assert str(hf_cache_dir(whole)) == done.stdout.decode().strip(), done.error_text


def test_the_stage_is_never_inside_the_cache_folder_itself(
    box: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.cache.mkdir()
    monkeypatch.setattr("labsync.disk.hf_cache.device_of", lambda path: int(".labsync" in path.parts))
    assert box.home.stage == box.root / ".labsync-stage"
    on_cache_only = {box.cache, box.repo}
    monkeypatch.setattr("labsync.disk.hf_cache.device_of", lambda path: int(path in on_cache_only))
    assert box.home.stage == box.repo / ".labsync-stage"


@pytest.mark.parametrize("gone", ["snapshots/{}/config.json", "refs/main", "trees/{}.json"])
def test_without_a_link_the_ref_or_the_listing_there_is_no_identity(box: Cache, gone: str) -> None:
    box.fill()
    assert box.home.identity() == box.snapshot.id
    (box.repo / gone.format(COMMIT)).unlink()
    assert box.home.identity() is None
    box.home.finish(box.snapshot)
    assert box.home.identity() == box.snapshot.id


def test_a_link_to_a_wrong_blob_leaves_no_identity(box: Cache) -> None:
    box.fill()
    link = box.home.path / "config.json"
    link.unlink()
    link.symlink_to("../../blobs/gone")
    assert box.home.identity() is None


def test_links_are_made_durable_once_for_each_folder(box: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    box.lock({f"deep/{number}.json": b"%d" % number for number in range(20)}, COMMIT)
    home = box.home
    for path in box.contents:
        box.publish(path)
    synced: list[str] = []
    monkeypatch.setattr("labsync.disk.hf_cache.fsync_dir", synced.append)
    home.finish(box.snapshot)
    assert synced == [str(box.home.path / "deep")]
