"""kill -9 in front of the steps of what takes seconds: an environment that is switched to, and the guard."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.fakes.zygote import Kill
from tests.faults.depth import ALL
from tests.faults.killing import Prepared, kills_of
from tests.faults.scenes import (
    RUNS,
    Scene,
    Stage,
    assert_sound,
    check_ended,
    check_killed,
    data_keys,
    lab,
    leftovers,
)

if TYPE_CHECKING:
    from tests.fakes.box import Box

pytestmark = pytest.mark.timeout(1200)
ENVIRONMENT = "environment: {name: lab, manager: venv, inherit: true, kernel: Lab}"
GUARD = ("guard", "run", "--remaining", "4s", "--interval", "1s", "--margin", "1s")
FILES = {f"{number}.json": b"%d" % number * 30 for number in range(5)}


def _environment(stage: Stage) -> Box:
    return lab(stage, ENVIRONMENT)


def _python(box: Box) -> list[str]:
    """Return the current environment's Python, none where nothing was switched to yet."""
    link = box.root.parent / f"{box.root.name}-home/labsync/envs/lab"
    return [str(link / "bin/python")] if link.is_symlink() else []


def _works(stage: Stage, box: Box) -> None:
    """What the name stands for is whole: it has its stamp, and Python imports labsync there."""
    for python in _python(box):
        subprocess.run([python, "-c", "import labsync.session"], check=True)


BUILDING = Scene("environment", _environment, ("env", "build"), after=_works)


@pytest.mark.fault(12)
def test_an_environment_is_switched_to_whole_or_not_at_all(stage: Stage) -> None:
    prepared = Prepared(stage, BUILDING)
    kills = [Kill("env.switch.switch: replace")]
    if ALL:
        kills += kills_of(prepared.steps(), everything=False)
    for kill in kills:
        prepared.again()
        assert stage.zygote.run(prepared.box, *BUILDING.command, kill=kill).killed, kill
        _works(stage, prepared.box)
        check_killed(stage, prepared.box, BUILDING)
        ended = stage.zygote.run(prepared.box, *BUILDING.command)
        assert ended.run.code == 0, (kill, ended.run.messages)
        assert _python(prepared.box)
        check_ended(stage, prepared.box, BUILDING)


def _guarded(stage: Stage) -> Box:
    box = lab(stage, RUNS)
    stage.fill(box, "outputs", FILES)
    return box


@pytest.mark.fault(8, 16)
def test_a_guard_that_is_killed_loses_nothing(stage: Stage) -> None:
    box = _guarded(stage)
    prepared = Prepared(stage, Scene("guard", _guarded, GUARD))
    prepared.again()
    whole = stage.zygote.run(box, *GUARD)
    assert whole.run.code == 15, whole.run.messages
    names = [name for name in dict.fromkeys(whole.steps) if not name.startswith("artifact_locks")]
    for name in names[::2] if ALL else names[-1:]:
        prepared.again()
        assert stage.zygote.run(box, *GUARD, kill=Kill(name)).killed, name
        assert_sound(box)
        assert box.tree("outputs") == FILES
        stage.do(box, "push", "runs")
        assert len(data_keys(stage, box)) == len(FILES)
        assert stage.do(box, "status", "runs").artifacts["results/runs"]["disk"] == "ok"
        assert [left for left in _left(stage, box) if not left.endswith(".labsync-new")] == []
    assert stage.zygote.run(box, *GUARD).run.code == 15  # it alone writes what is left then, and sweeps it
    assert _left(stage, box) == []


def _left(stage: Stage, box: Box) -> list[str]:
    return [left for left in leftovers(stage, box) if not left.endswith("/pins")]  # the folder itself stays
