"""Kills a scene's command in front of steps of it, runs it again, and judges both ends."""

from __future__ import annotations

import copy
import shutil
from collections import Counter
from typing import TYPE_CHECKING

from tests.fakes.box import Box
from tests.fakes.zygote import Kill
from tests.faults.scenes import check_ended, check_killed

if TYPE_CHECKING:
    from tests.fakes.strict_s3.store import Bucket
    from tests.faults.scenes import Scene, Stage


SAMPLE = 4


class Prepared:
    """A scene's lab as it is before the command, brought back as often as is needed."""

    def __init__(self, stage: Stage, scene: Scene) -> None:
        self.stage = stage
        self.scene = scene
        shutil.rmtree(stage.root, ignore_errors=True)
        stage.root.mkdir()
        self.box: Box = scene.prepare(stage)
        self._kept = stage.root.with_name("kept")
        shutil.rmtree(self._kept, ignore_errors=True)
        shutil.copytree(stage.root, self._kept, symlinks=True)
        self._bucket: Bucket = copy.deepcopy(stage.s3.service.buckets["lab"])

    def again(self) -> None:
        """Bring the lab back."""
        shutil.rmtree(self.stage.root)
        shutil.copytree(self._kept, self.stage.root, symlinks=True)
        self.stage.s3.service.buckets["lab"] = copy.copy(self._bucket)
        bucket = self.stage.s3.service.buckets["lab"]
        bucket.objects, bucket.uploads = dict(bucket.objects), {}

    def steps(self) -> list[str]:
        """Return the steps of a run that nobody kills."""
        self.again()
        ended = self.stage.zygote.run(self.box, *self.scene.command)
        assert ended.run.code == 0, (self.scene.name, ended.run.messages, ended.run.stderr)
        check_ended(self.stage, self.box, self.scene)
        return ended.steps

    def kill(self, *kills: Kill) -> int:
        """Kill one run after the other, then run to the end; return how many were killed indeed."""
        self.again()
        killed = 0
        for kill in kills:
            ended = self.stage.zygote.run(self.box, *self.scene.command, kill=kill)
            if not ended.killed:
                assert ended.run.code == 0, (kill, ended.run.messages, ended.run.stderr)
                break
            killed += 1
            check_killed(self.stage, self.box, self.scene)
        ended = self.stage.zygote.run(self.box, *self.scene.command)
        assert ended.run.code == 0, (kills, ended.run.messages, ended.run.stderr)
        check_ended(self.stage, self.box, self.scene)
        return killed


def kills_of(steps: list[str], *, everything: bool) -> list[Kill]:
    """Return a kill in front of each step, and torn ones of writes; else of every fourth name's first."""
    counts: Counter[str] = Counter()
    kills = []
    for name in steps:
        counts[name] += 1
        if everything or (counts[name] == 1 and len(counts) % SAMPLE == 0):
            kills.append(Kill(name, counts[name]))
            if name.endswith("write") and counts[name] == 1:
                kills.append(Kill(name, 1, torn=True))
    return kills
