"""Builds that are killed, run out of disk or run three at once: the next converges, the old one serves."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync import process
from labsync.env.build import build_environment
from labsync.env.repair import verify_environment
from labsync.errors import DiskError
from labsync.events import ignore
from tests.fakes.channel import MINOR
from tests.fakes.channel_server import ChannelServer
from tests.fakes.conda_lab import conda_box, evaluate, make_lock, repaired, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.box import Box
    from tests.fakes.channel import Channel

PYTHON = f"python={MINOR}"
SEED = 20260
KILLS = 10


@pytest.fixture
def server(channel: Channel) -> Iterator[ChannelServer]:
    with ChannelServer(channel.root) as served:
        yield served


def start(box: Box, *args: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "labsync", *args, "--json"]
    env = {**os.environ, **box.env}
    return subprocess.Popen(
        argv, cwd=box.root, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def home_of(box: Box) -> Path:
    return Path(box.env["LABSYNC_HOME"])


def test_killed_at_ten_moments_the_next_build_converges_and_the_old_environment_serves(
    server: ChannelServer, fast_path: Path
) -> None:
    box = conda_box(fast_path, server.url, PYTHON, "tiny=1.0")
    assert box.labsync("env", "lock").code == 0
    begin = time.monotonic()
    old = box.labsync("env", "build").report["environment"]["prefix"]
    whole = time.monotonic() - begin
    box.write("envs/lab.yaml", box.read("envs/lab.yaml").replace(b"tiny=1.0", b"tiny=2"))
    assert box.labsync("env", "lock").code == 0
    moments = random.Random(SEED)
    link = home_of(box) / "envs" / "lab"
    killed = 0
    for number in range(KILLS):
        if number % 2:  # as on a fresh box: everything is fetched and unpacked again
            subprocess.run(["rm", "-rf", str(home_of(box) / "pkgs" / "conda")], check=True)
        with start(box, "env", "build") as running:
            try:
                running.communicate(timeout=moments.uniform(0.1, whole))
            except subprocess.TimeoutExpired:
                killed += 1
            running.send_signal(signal.SIGKILL)
        version = evaluate(link, "import tiny; print(tiny.VERSION)")
        assert version in {"1.0", "2.0"}
        assert evaluate(old, "import tiny; print(tiny.VERSION)") == "1.0"
        if version == "2.0":  # it came to its end: the next one has everything to do again
            built = link.resolve()
            assert box.labsync("env", "rollback").code == 0
            shutil.rmtree(built)
    assert killed, "no build was killed"
    last = box.labsync("env", "build")
    assert last.code == 0, last.messages
    assert evaluate(last.report["environment"]["prefix"], "import tiny; print(tiny.VERSION)") == "2.0"
    assert box.labsync("verify").report["environment"]["state"] == "ok"
    assert [p.name for p in (home_of(box) / "pkgs" / "conda").glob(".*") if p.is_dir()] == []
    envs = home_of(box) / "envs"
    assert {p.name for p in envs.glob("lab*")} == {"lab", Path(old).name, os.readlink(envs / "lab")}


def children(process_id: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()]


def test_a_killed_labsync_takes_its_worker_along(server: ChannelServer, fast_path: Path) -> None:
    box = conda_box(fast_path, server.url, PYTHON, "tiny<2")
    assert box.labsync("env", "lock").code == 0
    asked, go_on = threading.Event(), threading.Event()

    def wait(data: bytes) -> bytes:
        asked.set()
        go_on.wait(60)
        return data

    server.faults["python-3"] = [wait]
    with start(box, "env", "build") as running:
        assert asked.wait(60)
        (worker,) = children(running.pid)
        ended = os.pidfd_open(worker)
        running.kill()
    gone = select.poll()
    gone.register(ended, select.POLLIN)
    assert gone.poll(30_000), "the worker outlives labsync"
    go_on.set()


def test_three_builds_at_once_make_one_environment(server: ChannelServer, fast_path: Path) -> None:
    box = conda_box(fast_path, server.url, PYTHON, "tiny<2")
    assert box.labsync("env", "lock").code == 0
    running = [start(box, "env", "build") for _ in range(3)]
    reports = [json.loads(each.communicate()[0].splitlines()[-1]) for each in running]
    assert sorted(report["environment"]["state"] for report in reports) == ["built", "reused", "reused"]
    assert server.asked("python-3") == 1


def test_what_does_not_fit_is_refused_before_the_first_byte(server: ChannelServer, fast_path: Path) -> None:
    box = conda_box(fast_path, server.url, PYTHON, "tiny<2", more="disk: {reserve: 900TB}\n")
    assert box.labsync("env", "lock").code == 0
    server.requests.clear()
    refused = box.labsync("env", "build")
    assert refused.code == 9
    assert "environment lab" in refused.messages
    assert server.requests == []
    assert not (home_of(box) / "envs").exists()


def mounted(folder: Path, size: int) -> bool:
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if folder.is_mount():
        options = ["-o", f"remount,size={size}", str(folder)]
    return process.run(["mount", *options]).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or not mounted(folder, 1 << 30):
        pytest.skip("only root may mount a small disk")
    yield folder
    process.run(["umount", "--lazy", str(folder)])


def test_a_full_disk_harms_nothing_and_with_room_it_goes_on(channel: Channel, small_disk: Path) -> None:
    url = channel.root.as_uri()
    small, large = (
        make_lock(small_disk, url, PYTHON, "tiny=1.0"),
        make_lock(small_disk, url, PYTHON, "ipykernel"),
    )
    old = build_environment(request(small_disk, small), ignore).prefix
    room = os.statvfs(small_disk)
    used = (room.f_blocks - room.f_bfree) * room.f_frsize
    for more in (2 << 20, 8 << 20):
        assert mounted(small_disk, used + more)
        with pytest.raises(DiskError) as caught:
            build_environment(request(small_disk, large, imports=()), ignore)
        assert caught.value.exit_code == 9
        assert evaluate(old, "import tiny; print(tiny.VERSION)") == "1.0"
    assert mounted(small_disk, 1 << 30)
    built = build_environment(request(small_disk, large, imports=("ipykernel",)), ignore)
    assert built.state == "built"
    assert verify_environment(small_disk / "home" / "envs", "lab")[0].state == "ok"


def test_a_record_that_a_full_disk_has_emptied_is_repaired(channel: Channel, fast_path: Path) -> None:
    asked = request(fast_path, make_lock(fast_path, channel.root.as_uri(), PYTHON, "tiny<2"))
    prefix = Path(build_environment(asked, ignore).prefix)
    (record,) = (prefix / "conda-meta").glob("tiny-*.json")
    record.write_bytes(b"")
    state, damage = verify_environment(asked.envs_dir, "lab")
    assert (state.state, damage.conda) == ("damaged", {"tiny": (record,)})
    assert repaired(asked).state == "repaired"
    assert json.loads(record.read_bytes())["name"] == "tiny"
