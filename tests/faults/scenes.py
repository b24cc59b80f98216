"""What is killed: commands with a lab before them, and what must be true however often they were killed."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from labsync.digest import sha256_bytes
from labsync.manifest.parse import load_manifest
from labsync.mirrors.registry import open_mirror
from tests.fakes.box import Box
from tests.fakes.live import assert_whole, parts
from tests.fakes.strict_s3.store import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.fakes.box import Run
    from tests.fakes.hub import Hub
    from tests.fakes.strict_s3 import StrictServer
    from tests.fakes.zygote import Zygote

    Files = Mapping[str, bytes]

LARGE = random.Random(5).randbytes((5 << 20) + 77)  # has a journal: more than `parts.WORTH`
HUGE = random.Random(6).randbytes((17 << 20) + 5)  # goes to S3 in parts
OLD = {
    "a.bin": b"a" * 3000,
    "b.json": b'{"b": 1}',
    "empty": b"",
    "sub/c.txt": b"c" * 70_000,
    "sub/deep/d.txt": b"old d",
    "twice.bin": b"a" * 3000,
}
NEW = {**OLD, "a.bin": b"A" * 3100, "sub/deep/d.txt": b"new d", "e.txt": b"e"}

MANIFEST = "version: 1\nproject: killed\nmirror: {mirror}\n{artifact}\n"
FRAMES = 'datasets: {frames: {origin: "file:origin/", path: frames}}'
PENS = 'datasets: {pens: {origin: "file:origin/", path: pens-here, layout: packed}}'
MODEL = 'models: {tiny: {origin: "hf://lab/tiny@main"}}'
TUNED = "checkpoints: {tuned: {path: tuned}}"
RUNS = "results: {runs: {path: outputs}}"


@dataclass
class Stage:
    """Everything around a box: the servers it may need, and the folder everything lies in."""

    root: Path
    zygote: Zygote
    s3: StrictServer
    hub: Hub

    def box(self, artifact: str, name: str = "box", *, s3: bool = False) -> Box:
        """Return a box of one artifact, with a mirror beside it or in the bucket."""
        mirror = f"{{url: s3://lab/p, endpoint: '{self.s3.url}', region: us-east-1}}" if s3 else "../mirror"
        manifest = MANIFEST.format(mirror=mirror, artifact=artifact)
        return Box(self.root / name, manifest, {**self.s3.env, "HF_ENDPOINT": self.hub.url})

    def fill(self, box: Box, folder: str, files: Files) -> None:
        shutil.rmtree(box.root / folder, ignore_errors=True)
        for path, data in files.items():
            box.write(f"{folder}/{path}", data)

    def do(self, box: Box, *args: str) -> Run:
        """Run a command that must succeed."""
        ended = self.zygote.run(box, *args)
        assert ended.run.code == 0, (args, ended.run.messages, ended.run.stderr)
        return ended.run


def data_keys(stage: Stage, box: Box) -> list[str]:
    """Return the keys of the mirror that hold data."""
    if "s3://" in box.manifest.read_text():
        keys = [key.removeprefix("p/") for key in stage.s3.keys("lab")]
    else:
        mirror = stage.root / "mirror"
        keys = [p.relative_to(mirror).as_posix() for p in mirror.rglob("*") if p.is_file()]
    return [key for key in keys if not key.startswith(".labsync/")]


def assert_sound(box: Box) -> None:
    """Assert that each head of the mirror names a snapshot all of whose bytes are there and right."""
    mirror = open_mirror(load_manifest(box.manifest).mirror)
    seen: set[tuple[str, int | None]] = set()
    for name in mirror.heads():
        head = mirror.head(name)
        index = mirror.index(head.index)
        assert index.snapshot.id == head.snapshot
        for located in index.files:
            if (located.key, located.offset) in seen:
                continue
            seen.add((located.key, located.offset))
            data = b"".join(bytes(block) for block in mirror.read(located.ref, located.entry))
            assert sha256_bytes(data) == located.entry.sha256, located


@dataclass(frozen=True)
class Scene:
    """A command on a prepared lab. `shown` are the folders it writes, each with all it may hold."""

    name: str
    prepare: Callable[[Stage], Box]
    command: tuple[str, ...]
    shown: Mapping[str, tuple[Files, ...]] = field(default_factory=dict)
    stored: int | None = None
    after: Callable[[Stage, Box], None] | None = None


def check_killed(stage: Stage, box: Box, scene: Scene) -> None:
    """Assert what must be true right after a kill: old or new, and nothing visible that is not whole."""
    for folder, versions in scene.shown.items():
        assert_whole(box.root / folder, *versions)
    assert_sound(box)


def check_ended(stage: Stage, box: Box, scene: Scene) -> None:
    """Assert what must be true after the command ran to its end, whatever was before."""
    again = stage.zygote.run(box, *scene.command)
    assert again.run.code == 0, (again.run.messages, again.run.stderr)
    if scene.command[0] not in {"lock"}:
        moved = again.run.transferred
        assert not any(moved.values()), moved
    for folder, versions in scene.shown.items():
        assert box.tree(folder) == dict(versions[-1])
    assert_sound(box)
    assert leftovers(stage, box) == []
    if scene.stored is not None:
        assert len(data_keys(stage, box)) == scene.stored, Counter(data_keys(stage, box))
    if scene.after:
        scene.after(stage, box)


def leftovers(stage: Stage, box: Box) -> list[str]:
    """Return what a killed run may not leave once the command was run again to its end."""
    left = [str(path) for path in parts(box)]
    left += [str(path) for path in stage.root.rglob("*.labsync-new")]
    left += [str(path) for path in stage.root.rglob("*.corrupt-*")]
    # One that no part was sent to cannot have been journalled: it has no byte, and a rule of the bucket
    # removes it.
    left += [upload.key for upload in stage.s3.service.buckets["lab"].uploads.values() if upload.parts]
    return left


def lab(stage: Stage, artifact: str, *, s3: bool = False) -> Box:
    """Return a box of one artifact, and an empty bucket."""
    stage.s3.service.buckets["lab"] = Bucket()
    return stage.box(artifact, s3=s3)


def _forget_what_lock_read(box: Box) -> None:
    shutil.rmtree(box.root / ".labsync/fetched", ignore_errors=True)


def _before_a_pull(stage: Stage) -> Box:
    box = lab(stage, FRAMES)
    stage.fill(box, "origin", {**OLD, "large.bin": LARGE})
    stage.do(box, "lock")
    _forget_what_lock_read(box)
    return box


def _before_an_update(stage: Stage) -> Box:
    box = lab(stage, FRAMES)
    stage.fill(box, "origin", OLD)
    stage.do(box, "lock")
    stage.do(box, "pull", "frames")
    stage.fill(box, "origin", NEW)
    stage.do(box, "lock", "--upgrade")
    return box


def _before_a_packed_pull(stage: Stage) -> Box:
    box = lab(stage, PENS)
    stage.fill(box, "origin", OLD)
    stage.do(box, "lock")
    _forget_what_lock_read(box)
    return box


def _before_a_model(stage: Stage) -> Box:
    box = lab(stage, MODEL)
    stage.do(box, "lock")
    return box


def _before_a_push(stage: Stage) -> Box:
    box = lab(stage, RUNS)
    stage.fill(box, "outputs", OLD)
    stage.do(box, "push", "runs")
    stage.fill(box, "outputs", NEW)
    return box


def _before_checkpoints(stage: Stage) -> Box:
    box = lab(stage, TUNED, s3=True)
    for step in (1, 2):
        box.write(f"tuned/step-{step}/trainer_state.json", b"{%d}" % step)
        box.write(f"tuned/step-{step}/model.bin", HUGE if step == 2 else b"small")
    return box


def _before_filling(stage: Stage) -> Box:
    box = lab(stage, FRAMES, s3=True)
    stage.fill(box, "origin", {**OLD, "large.bin": HUGE})
    stage.do(box, "lock")
    _forget_what_lock_read(box)
    return box


def _before_a_made_pull(stage: Stage) -> Box:
    """Another box has pushed something newer than what this one has; one file was edited here."""
    box, other = lab(stage, RUNS, s3=True), stage.box(RUNS, "other", s3=True)
    shutil.rmtree(other.root / ".labsync", ignore_errors=True)
    stage.fill(other, "outputs", OLD)
    stage.do(other, "push", "runs")
    stage.do(box, "pull", "runs")
    stage.fill(other, "outputs", NEW)
    stage.do(other, "push", "runs")
    box.write("outputs/b.json", b"edited here")
    return box


def _has_mine_aside(stage: Stage, box: Box) -> None:
    kept = [path.read_bytes() for path in (box.root / ".labsync/aside").rglob("*") if path.is_file()]
    assert b"edited here" in kept, "the edited file was not set aside"


def _loads_from_the_cache(stage: Stage, box: Box) -> None:
    cache = next(stage.root.rglob("models--lab--tiny"))
    commit = (cache / "refs/main").read_text()
    for path, data in TINY.items():
        assert (cache / "snapshots" / commit / path).read_bytes() == data


TINY = {"config.json": b"{}", "model.safetensors": b"m" * 2000, "sub/tokenizer.json": b"[]"}

SCENES = (
    Scene("pull", _before_a_pull, ("pull", "frames"), {"frames": ({**OLD, "large.bin": LARGE},)}, 6),
    Scene("update", _before_an_update, ("pull", "frames"), {"frames": (OLD, NEW)}, 8),
    Scene("packed", _before_a_packed_pull, ("pull", "pens"), {"pens-here": (OLD,)}, 1),
    Scene("cache", _before_a_model, ("pull", "tiny"), stored=3, after=_loads_from_the_cache),
    Scene("made", _before_a_made_pull, ("pull", "runs", "--force"),
          {"outputs": ({**OLD, "b.json": b"edited here"}, NEW)}, 8, after=_has_mine_aside),
    Scene("push", _before_a_push, ("push", "runs"), stored=8),
    Scene("checkpoints", _before_checkpoints, ("push", "tuned"), stored=4),
    Scene("mirror", _before_filling, ("mirror", "frames"), stored=6),
    Scene("lock", _before_an_update, ("lock", "--upgrade")),
)  # fmt: skip
