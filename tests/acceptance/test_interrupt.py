"""A signal ends labsync cleanly: its own exit code, a report, whole files; another labsync is named."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from labsync.artifact_locks import hold
from tests.fakes.box import Box
from tests.fakes.http_faults import Fault
from tests.fakes.live import Trickle, assert_sound, assert_whole, digest, parts, start, stop, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL, BIG = b"small" * 100, os.urandom(1 << 23)


def _manifest(origin: str, *, known: bool = True) -> str:
    sha256 = f"sha256: {digest(BIG)}, " if known else ""
    return (
        "version: 1\nproject: interrupted\nmirror: ./mirror\ncheckpoints:\n"
        f"  a-small: {{origin: '{origin}/small.bin', path: got/small.bin}}\n"
        f"  b-big: {{origin: '{origin}/big.bin', {sha256}path: got/big.bin}}\n"
        "results:\n  runs: {path: outputs}\n"
    )


@pytest.fixture
def origin() -> Iterator[Trickle]:
    with Trickle({"/small.bin": SMALL, "/big.bin": BIG}, "/big.bin") as server:
        yield server


@pytest.fixture
def box(tmp_path: Path, origin: Trickle) -> Box:
    box = Box(tmp_path / "box", _manifest(origin.url))
    assert box.labsync("lock").code == 0
    return box


@pytest.mark.fault(5, 6, 7)
@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("command", ["pull", "mirror"])
def test_a_signal_in_a_transfer(
    box: Box, origin: Trickle, command: str, signum: signal.Signals, code: int
) -> None:
    child = start(box, command, "checkpoints")
    until(origin.flowing.is_set, child)
    ended = stop(child, signum)
    assert ended.code == code, ended.stderr
    assert ended.report["type"] == "report"
    assert ended.report["exit_code"] == code
    assert [error["code"] for error in ended.errors] == [code]
    assert signum.name in ended.errors[0]["message"]
    assert "Traceback" not in ended.stderr
    assert "hint" in ended.stderr or "safe" in ended.stderr
    assert_whole(box.root / "got", {"small.bin": SMALL, "big.bin": BIG})
    assert_sound(box.root / "mirror")
    assert {part.suffix for part in parts(box)} <= {".part", ".blocks"}  # the next run goes on from there

    origin.release.set()
    again = box.labsync(command, "checkpoints")
    assert again.code == 0, again.messages
    assert {artifact["mirror"] for artifact in again.artifacts.values()} == {"ok"}
    assert box.labsync("pull", "checkpoints").code == 0
    assert parts(box) == []
    assert box.tree("got") == {"small.bin": SMALL, "big.bin": BIG}
    assert box.labsync("verify", "checkpoints").code == 0


@pytest.mark.fault(5, 6)
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_lock_reads_digests(
    tmp_path: Path, origin: Trickle, signum: signal.Signals, code: int
) -> None:
    box = Box(tmp_path / "box", _manifest(origin.url, known=False))
    child = start(box, "lock")
    until(origin.flowing.is_set, child)
    ended = stop(child, signum)
    assert ended.code == code, ended.stderr
    assert ended.report["exit_code"] == code
    assert "Traceback" not in ended.stderr
    assert not (box.root / "labsync.lock").exists()
    assert parts(box) == []
    origin.release.set()
    assert box.labsync("lock").code == 0
    assert box.labsync("lock", "--check").code == 0


@pytest.mark.fault(5)
def test_a_signal_in_bootstrap_is_in_its_report_and_ends_it(box: Box, origin: Trickle) -> None:
    child = start(box, "bootstrap")
    until(origin.flowing.is_set, child)
    ended = stop(child, signal.SIGTERM)
    assert ended.code == 143, ended.stderr
    assert ended.report["exit_code"] == 143
    origin.release.set()
    again = box.labsync("bootstrap")
    assert again.code == 0, again.messages


@pytest.mark.fault(6)
def test_a_second_signal_does_not_wait_for_a_connection_that_stalls(box: Box, origin: Trickle) -> None:
    origin.release.set()
    origin.fault(Fault("/big.bin", method="GET", stall_after=0))
    asked = len(origin.requests)
    child = start(box, "pull", "checkpoints")
    until(lambda: any(r.path == "/big.bin" for r in origin.requests[asked:]), child)
    child.send_signal(signal.SIGINT)
    for _ in range(100):  # twenty seconds at most: a stall is noticed after thirty
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.2)
            break
        child.send_signal(signal.SIGTERM)
    child.communicate(timeout=20)
    assert child.returncode == 143
    origin.faults.clear()
    assert box.labsync("pull", "checkpoints").code == 0
    assert box.labsync("verify", "checkpoints").code == 0
    assert parts(box) == []


@pytest.mark.fault(7)
def test_under_nohup_a_hangup_is_ignored(box: Box, origin: Trickle) -> None:
    child = start(box, "pull", "checkpoints", through=("nohup",))
    until(origin.flowing.is_set, child)
    child.send_signal(signal.SIGHUP)
    origin.release.set()
    out, err = child.communicate(timeout=30)
    assert child.returncode == 0, err
    assert out


@pytest.mark.fault(13)
def test_two_on_one_artifact_name_the_process_and_its_command(box: Box, origin: Trickle) -> None:
    origin.release.set()
    with hold(box.root / ".labsync", "checkpoints/a-small", "disk"):
        refused = box.labsync("pull", "a-small")
        assert refused.code == 10
        assert f"process {os.getpid()} (`" in refused.errors[0]["message"]
        assert "checkpoints/a-small" in refused.errors[0]["message"]
        # Neither its other artifacts nor its readers are held up.
        assert box.labsync("pull", "b-big").code == 0
        assert box.labsync("verify", "b-big").code == 0
        assert box.labsync("path").code == 0
    assert box.labsync("pull", "a-small").code == 0


@pytest.mark.fault(13)
def test_a_running_pull_is_named_to_the_second_one(box: Box, origin: Trickle) -> None:
    child = start(box, "pull", "b-big")
    until(origin.flowing.is_set, child)
    second = box.labsync("pull", "b-big")
    assert second.code == 10
    assert f"process {child.pid} (`" in second.errors[0]["message"]
    assert "pull b-big --json`" in second.errors[0]["message"]
    origin.release.set()
    assert child.wait(30) == 0
    child.communicate()
    assert box.labsync("status", "b-big").code == 0


def test_a_push_is_held_up_by_the_mirrors_step_only(box: Box) -> None:
    box.write("outputs/x", b"x")
    with hold(box.root / ".labsync", "results/runs", "mirror"):
        assert box.labsync("push").code == 10
        assert box.labsync("pull", "results").code == 0
    assert box.labsync("push").code == 0


@pytest.mark.parametrize("as_json", [True, False])
def test_a_reader_that_goes_away_is_no_failure(box: Box, as_json: bool) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "labsync", "du", *(["--json"] if as_json else [])],
        cwd=box.root,
        env={**os.environ, **box.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    said = child.stderr.read()
    assert child.wait(30) == 0, said
    assert said == ""
