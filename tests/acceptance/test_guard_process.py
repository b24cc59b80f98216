"""The guard as a process: started, told, killed, started again, and ended by each thing that can end it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from labsync.process import run
from tests.fakes.box import Box
from tests.fakes.live import LIMIT, assert_sound, start, stop
from tests.fakes.s3 import ENV

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MANIFEST = """
version: 1
project: guarded
mirror: ../mirror
results:
  runs: {path: outputs}
checkpoints:
  tuned: {path: tuned}
"""


@dataclass
class Guarded:
    """A box, and the guards that the test starts on it; none outlives the test."""

    box: Box
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def run_guard(self, *args: str) -> subprocess.Popen[str]:
        child = start(self.box, "guard", "run", *args)
        self.children.append(child)
        self.await_(lambda: self.events("push") != [] or child.poll() is not None)
        return child

    def journal(self) -> list[dict[str, Any]]:
        path = self.box.root / ".labsync/guard/labsync.journal.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of this kind of the last session."""
        session: list[dict[str, Any]] = []
        for event in self.journal():
            session = [event] if event["event"] == "begin" else [*session, event]
        return [event for event in session if event["event"] == kind]

    def await_(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT
        while not happened():
            assert time.monotonic() < end, self.log()
            time.sleep(0.01)

    def log(self) -> str:
        path = self.box.root / ".labsync/guard/labsync.log"
        return path.read_text() if path.exists() else ""

    def said(self, kind: str) -> dict[str, Any]:
        """Return what `guard status` says of one kind."""
        return next(line for line in self.box.labsync("guard", "status").lines if line["type"] == kind)

    def time_left(self) -> float:
        """Return what a training loop is told."""
        code = "from labsync import session; print(session.time_left() if not session.should_stop() else 0)"
        told = run([sys.executable, "-c", code], env={**os.environ, **self.box.env})
        return float(told.stdout)

    def restored(self) -> dict[str, bytes]:
        fresh = Box(self.box.root.parent / f"fresh-{time.monotonic_ns()}", MANIFEST)
        assert fresh.labsync("pull").code == 0
        found: dict[str, bytes] = {}
        for folder in ("outputs", "tuned"):
            if (fresh.root / folder).exists():
                found |= {f"{folder}/{path}": data for path, data in fresh.tree(folder).items()}
        return found


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    lab = Guarded(Box(tmp_path / "box", MANIFEST))
    yield lab
    for child in lab.children:
        child.kill()
        child.communicate()
    guard = lab.said("guard_status")
    if guard["state"] == "running":
        os.kill(guard["pid"], signal.SIGKILL)


@pytest.mark.fault(9)
def test_the_deadline_ends_it_with_its_own_code(guarded: Guarded) -> None:
    guarded.box.write("outputs/a.json", b"{}")
    guarded.box.write("tuned/checkpoint-1/w", b"w")
    guarded.box.write("tuned/checkpoint-1/trainer_state.json", b"{}")
    guarded.box.write("tuned/checkpoint-2/w", b"half")
    child = guarded.run_guard("--remaining", "5s", "--interval", "1s")
    out, _ = child.communicate(timeout=LIMIT)
    assert child.returncode == 15
    assert json.loads(out.splitlines()[-1])["exit_code"] == 15
    (end,) = guarded.events("end")
    assert [w["path"] for w in end["waiting"]] == ["checkpoint-2"]
    phases = [event["phase"] for event in guarded.events("phase")]
    assert (phases[0], phases[-1]) == ("watch", "stop")
    assert guarded.restored() == {
        "outputs/a.json": b"{}",
        "tuned/checkpoint-1/w": b"w",
        "tuned/checkpoint-1/trainer_state.json": b"{}",
    }
    told = guarded.box.labsync("status")
    last = next(line for line in told.lines if line["type"] == "last_session")
    assert last["reason"] == "the time left that you typed"
    assert last["safe"][0].startswith("checkpoints/tuned@")
    assert last["unsafe"] == ["checkpoints/tuned checkpoint-2: the checkpoint is not finished"]
    assert last["command"] == "labsync push"


@pytest.mark.fault(5, 6, 7)
@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_shortens_the_time_left_and_what_is_finished_still_goes(
    guarded: Guarded, signum: signal.Signals, code: int
) -> None:
    child = guarded.run_guard("--remaining", "4h")
    guarded.box.write("tuned/checkpoint-1/w", b"w")
    guarded.box.write("tuned/checkpoint-1/trainer_state.json", b"{}")
    began = time.monotonic()
    assert stop(child, signum).code == code
    assert time.monotonic() - began < 15
    (end,) = guarded.events("end")
    assert (end["reason"], end["exit_code"], end["waiting"]) == (signum.name, code, [])
    assert len(guarded.restored()) == 2


@pytest.mark.fault(6)
def test_a_second_signal_ends_it_at_once(guarded: Guarded) -> None:
    child = guarded.run_guard()
    guarded.box.write("outputs/a", b"a")  # it would wait for it to rest
    child.send_signal(signal.SIGTERM)
    guarded.await_(lambda: any(p["phase"] == "freeze" for p in guarded.events("phase")))
    assert stop(child, signal.SIGTERM).code == 143


@pytest.mark.fault(13)
def test_there_is_one_guard_and_the_second_names_it(guarded: Guarded) -> None:
    child = guarded.run_guard()
    second = guarded.box.labsync("guard", "run")
    assert second.code == 10
    assert f"process {child.pid}" in second.messages
    again = guarded.box.labsync("guard", "start")
    assert again.code == 0
    assert f"process {child.pid}" in again.stderr or again.lines[1]["pid"] == child.pid


def test_of_checkpoints_found_together_the_head_is_the_newest_by_their_own_time(guarded: Guarded) -> None:
    for name, minute in (("older", 1), ("newer", 2)):  # more than an unmeasured mirror takes at once
        for file, data in (("w", bytes(1 << 20)), ("trainer_state.json", b"{}")):
            path = guarded.box.write(f"tuned/{name}/{file}", data)
            os.utime(path, (1_790_000_000 + 60 * minute,) * 2)
    guarded.run_guard("--remaining", "6s", "--interval", "1s").communicate(timeout=LIMIT)
    assert {path.split("/")[1] for path in guarded.restored()} == {"newer"}
    (end,) = guarded.events("end")
    assert [(w["path"], w["reason"]) for w in end["waiting"]] == [
        ("older", "it is older than the newest checkpoint in the mirror")
    ]


@pytest.mark.fault(7)
def test_started_in_the_background_and_stopped(guarded: Guarded) -> None:
    started = guarded.box.labsync("guard", "start", "--remaining", "4h")
    assert started.code == 0, started.messages
    told = {line["type"]: line for line in started.lines}
    pid = told["guard_status"]["pid"]
    assert told["guard_status"]["state"] == "running"
    assert 14390 < told["session_status"]["seconds_left"] <= 14400
    assert os.getsid(pid) == pid  # a closed terminal does not end it
    guarded.box.write("tuned/checkpoint-1/w", b"w")
    guarded.box.write("tuned/checkpoint-1/trainer_state.json", b"{}")
    stopped = guarded.box.labsync("guard", "stop")
    assert (stopped.code, stopped.lines[0]["state"]) == (0, "off")
    (end,) = guarded.events("end")
    assert (end["reason"], end["exit_code"]) == ("you stopped it", 0)
    assert 14000 < guarded.time_left() < 14400, "the session goes on, and so does a training loop"
    assert len(guarded.restored()) == 2
    assert guarded.box.labsync("guard", "stop").code == 0  # none runs: fine


def test_the_day_begins_with_one_command_and_doing_it_again_does_nothing(guarded: Guarded) -> None:
    guarded.box.write("outputs/a.json", b"{}")
    assert guarded.box.labsync("push").code == 0
    fresh = Guarded(Box(guarded.box.root.parent / "fresh", MANIFEST))
    first = fresh.box.labsync("up", "--remaining", "4h")
    told = {line["type"]: line for line in first.lines}
    assert (first.code, first.transferred["from_mirror"]) == (0, 2)
    assert told["guard_status"]["state"] == "running"
    assert told["session_status"]["seconds_left"] > 14000
    assert fresh.box.read("outputs/a.json") == b"{}"
    again = fresh.box.labsync("up")
    assert (again.code, again.transferred["files"], again.requests) == (0, 0, {"LIST": 1})
    assert again.lines[2]["pid"] == told["guard_status"]["pid"]
    assert fresh.box.labsync("guard", "stop").code == 0


def test_the_hours_of_a_platform_that_counts_them_are_told(guarded: Guarded) -> None:
    guarded.box.manifest.write_text(MANIFEST + "session: studio-lab-cpu\n")
    told = guarded.box.labsync("status").lines[1]
    assert (told["gpu_allowed"], told["cpu_allowed"]) == (4 * 3600, 8 * 3600)
    assert told["cpu_used"] > 0  # since the start of this machine
    book = Path(guarded.box.env["LABSYNC_HOME"]) / "session.json"
    assert json.loads(book.read_bytes())["sessions"][0]["profile"] == "studio-lab-cpu"


def test_what_fails_in_the_morning_keeps_the_guard_from_nothing(guarded: Guarded) -> None:
    guarded.box.manifest.write_text(MANIFEST + "models: {m: {origin: 'file:./none', path: m}}\n")
    told = guarded.box.labsync("up")
    assert told.code == 3  # not locked
    assert next(line for line in told.lines if line["type"] == "guard_status")["state"] == "running"


@pytest.mark.fault(16)
def test_killed_it_is_seen_to_be_dead_and_starts_again(guarded: Guarded) -> None:
    child = guarded.run_guard("--remaining", "4h")
    guarded.box.write("tuned/checkpoint-1/w", b"w")
    child.kill()
    child.communicate()
    assert guarded.said("guard_status")["state"] == "died"
    assert f"warning: the guard (process {child.pid}) died" in guarded.box.labsync("path").stderr
    told = guarded.box.labsync("status")
    assert told.lines[0]["next_command"] == "labsync push checkpoints/tuned"
    last = next(line for line in told.lines if line["type"] == "last_session")
    assert (last["reason"], last["ended"] >= last["began"]) == ("", True)
    guarded.box.write("tuned/checkpoint-1/trainer_state.json", b"{}")
    again = guarded.run_guard("--interval", "1s")
    guarded.await_(lambda: any(push["safe"] for push in guarded.events("push")))
    assert guarded.said("session_status")["seconds_left"] > 14000  # what was typed still holds
    assert stop(again, signal.SIGTERM).code == 143
    assert_sound(guarded.box.root.parent / "mirror")


def test_a_running_guard_takes_a_newly_typed_end(guarded: Guarded) -> None:
    child = guarded.run_guard("--remaining", "4h")
    again = guarded.box.labsync("guard", "start", "--remaining", "3s")
    assert again.code == 0
    told = next(line for line in again.lines if line["type"] == "session_status")
    assert told["seconds_left"] <= 3
    child.communicate(timeout=LIMIT)
    assert child.returncode == 15


TRAINER = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("training", flush=True)
signal.sigwait([signal.SIGUSR1])
print("saving")
"""


def test_the_trainer_is_asked_to_save(guarded: Guarded) -> None:
    asked = guarded.box.root / "asked"
    trainer = subprocess.Popen([sys.executable, "-c", TRAINER], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "training\n"
    child = guarded.run_guard(
        "--remaining=4s", "--interval=1s", "--on-drain", f"signal:USR1:{trainer.pid}",
        "--on-drain", "file:stop.please", "--on-drain", f"command:touch '{asked}'",
    )  # fmt: skip
    out, _ = trainer.communicate(timeout=LIMIT)
    assert out == "saving\n"
    child.communicate(timeout=LIMIT)
    assert (guarded.box.root / "stop.please").exists()
    assert asked.exists()


class _Metadata(BaseHTTPRequestHandler):
    """An instance's metadata service (IMDSv2) with a notice, once `taken` is set."""

    taken = False
    asked = 0

    def do_PUT(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer(200, b"token")

    def do_GET(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token"] == "token"
        assert self.path == "/latest/meta-data/spot/instance-action"
        type(self).asked += 1
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 4))
        notice = json.dumps({"action": "terminate", "time": at}).encode()
        self._answer(200 if self.taken else 404, notice if self.taken else b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.fault(9)
def test_a_spot_instance_is_taken_away(guarded: Guarded) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Metadata)
    Thread(target=server.serve_forever, daemon=True).start()
    guarded.box.env.update(
        AWS_EC2_METADATA_SERVICE_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
        AWS_EC2_METADATA_DISABLED="false",
    )
    guarded.box.manifest.write_text(MANIFEST + "session: ec2-spot\n")
    _Metadata.taken = True
    child = guarded.run_guard()
    child.communicate(timeout=LIMIT)
    server.shutdown()
    server.server_close()
    assert child.returncode == 15
    assert guarded.events("end")[0]["reason"] == "the spot instance is taken away"
    assert _Metadata.asked > 0


@pytest.mark.fault(9, 46)
def test_a_mirror_that_falls_silent_does_not_hold_it_beyond_the_end(guarded: Guarded) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and never answers
        port = silent.getsockname()[1]
        mirror = f"mirror: {{url: s3://bucket/p, endpoint: 'http://127.0.0.1:{port}', region: us-east-1}}"
        guarded.box.manifest.write_text(MANIFEST.replace("mirror: ../mirror", mirror))
        guarded.box.env.update(ENV)
        child = start(guarded.box, "guard", "run", "--remaining=4s")
        guarded.children.append(child)
        child.communicate(timeout=LIMIT)
    assert child.returncode == 15
    assert guarded.events("end")[0]["reason"] == "the mirror did not answer any more"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["guard", "start", "--remaining", "3:12"], 2, "`3:12` is not a duration"),
        (["guard", "start", "--remaining", "0s"], 2, "`--remaining 0s` is no time at all"),
        (["guard", "start", "--remaining", "5m", "--margin", "10m"], 2, "the margin leaves nothing"),
        (["guard", "start", "--on-drain", "kill:7"], 2, "`--on-drain kill:7` is not understood"),
        (["guard", "start", "--on-drain", "signal:NOPE:7"], 2, "is not understood"),
        (["guard", "run", "--on-drain", "file:"], 2, "is not understood"),
    ],
)
def test_bad_input_is_said(guarded: Guarded, args: list[str], code: int, said: str) -> None:
    ended = guarded.box.labsync(*args)
    assert ended.code == code
    assert said in ended.messages


def test_where_nothing_is_made_there_is_nothing_to_guard(tmp_path: Path) -> None:
    box = Box(tmp_path / "box", "version: 1\nproject: x\nmirror: ./mirror\n")
    for command in ("start", "run"):
        ended = box.labsync("guard", command)
        assert ended.code == 2
        assert "nothing is made here" in ended.messages


def test_a_guard_that_cannot_begin_says_why(tmp_path: Path) -> None:
    manifest = MANIFEST.replace("../mirror", "s3://bucket/prefix")
    box = Box(tmp_path / "box", manifest)
    box.write(".labsync/guard/labsync.journal.jsonl", b"")
    (box.root / ".labsync/guard/labsync.journal.jsonl").unlink()
    (box.root / ".labsync/guard/labsync.journal.jsonl").mkdir()
    ended = box.labsync("guard", "start")
    assert ended.code == 9
    assert "the guard did not start" in ended.messages


def test_the_line_for_cron_runs_as_it_is_printed(guarded: Guarded) -> None:
    printed = guarded.box.labsync("guard", "print-cron").lines[0]["location"]
    assert printed.startswith("*/10 * * * * ")
    command = printed.split(" ", 5)[5]
    ended = run(["/bin/sh", "-c", command], env={**os.environ, **guarded.box.env}, cwd=Path("/"))
    assert ended.returncode == 0, ended.error_text
    assert guarded.said("guard_status")["state"] == "running"
    assert guarded.box.labsync("guard", "stop").code == 0
