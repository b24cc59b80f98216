"""kill -9 at random instants, again and again in one lab, until the command ends: nothing lost or torn."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.fakes.zygote import Kill
from tests.faults.depth import SEED, count
from tests.faults.killing import Prepared
from tests.faults.scenes import SCENES, check_ended, check_killed

if TYPE_CHECKING:
    from tests.faults.scenes import Scene, Stage

pytestmark = pytest.mark.timeout(1200)
KILLS = count(3, 45)  # of each scene: two hundred and more of all


@pytest.mark.fault(1, 2, 8, 14)
@pytest.mark.parametrize(
    "scene",
    [scene for scene in SCENES if scene.name in {"pull", "update", "push", "checkpoints", "mirror"}],
    ids=lambda scene: str(scene.name),
)
def test_killed_at_random(stage: Stage, scene: Scene) -> None:
    prepared = Prepared(stage, scene)
    began = time.monotonic()
    prepared.steps()
    roll, longest = random.Random(f"{SEED} {scene.name}"), (time.monotonic() - began) / 2
    killed = rounds = 0
    while killed < KILLS:
        prepared.again()
        rounds += 1
        assert rounds < 20 * KILLS, "it is never hit"
        for _ in range(8):
            kill = Kill(after=0.001 + roll.random() * longest)
            if not stage.zygote.run(prepared.box, *scene.command, kill=kill).killed:
                break
            killed += 1
            check_killed(stage, prepared.box, scene)
        ended = stage.zygote.run(prepared.box, *scene.command)
        assert ended.run.code == 0, (ended.run.messages, ended.run.stderr)
        check_ended(stage, prepared.box, scene)
