"""Conda environments built for real from a real channel: py-rattler, a Python of their own, no conda."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labsync import process
from labsync.env import rattler_client
from labsync.env.build import build_environment, environment_state
from labsync.env.packages import bytes_to_build, missing
from labsync.env.record import damaged_files, dist_infos
from labsync.env.stamp import variables_of
from labsync.errors import EnvironmentFailedError, InvalidError, RefusedError
from labsync.events import Note, TransferPlanned, ignore
from labsync.report import Built
from tests.fakes.channel import MINOR, VERSION, Member, module
from tests.fakes.channel_server import ChannelServer
from tests.fakes.conda_lab import BASE, evaluate, make_lock, request
from tests.fakes.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labsync.env.lock import EnvironmentLock
    from tests.fakes.channel import Channel


@pytest.fixture(scope="module")
def lock(channel: Channel, fast_disk: Path) -> EnvironmentLock:
    return make_lock(fast_disk, channel.root.as_uri(), *BASE, "probe")


@pytest.fixture(scope="module")
def built(fast_disk: Path, lock: EnvironmentLock) -> Path:
    """An environment that tests look at and do not change."""
    return Path(build_environment(request(fast_disk / "shared", lock), ignore).prefix)


@pytest.fixture
def server(channel: Channel, fast_path: Path) -> Iterator[ChannelServer]:
    with ChannelServer(channel.root) as served:
        yield served


def temporary_folders(home: Path) -> list[str]:
    return [path.name for path in (home / "pkgs" / "conda").glob(".*") if path.is_dir()]


def test_the_environment_has_a_python_of_its_own_and_every_locked_package(built: Path) -> None:
    assert evaluate(built, "import sys; print(sys.prefix)") == str(built)
    assert evaluate(built, "import sys; print('.'.join(map(str, sys.version_info[:3])))") == VERSION
    assert evaluate(built, "import tiny, zmq, ssl, sqlite3, ctypes; print(tiny.VERSION)") == "1.5"
    assert evaluate(built, "import labsync; print(labsync.__file__)").startswith(f"{built}/")
    assert (built / "conda-meta" / "history").exists()
    assert process.run([str(built / "bin" / "jupyter-kernelspec"), "--version"]).returncode == 0


def test_the_prefix_is_written_into_text_and_binaries_and_links_stay_links(built: Path) -> None:
    probe = built / "share" / "probe"
    assert (probe / "text").read_text() == f"prefix={built}\n"
    blob = (probe / "blob").read_bytes()
    assert f"{built}/lib\0".encode() in blob
    assert b"labsync_placeholder" not in blob
    assert os.readlink(probe / "link") == "text"


def test_conda_finds_it_by_name_through_one_link(built: Path) -> None:
    shown = built.parents[2] / "user" / ".conda" / "envs" / "lab"
    assert os.readlink(shown) == str(built.parent / "lab")
    assert shown.resolve() == built
    records = [json.loads(path.read_text()) for path in (built / "conda-meta").glob("*.json")]
    assert {record["name"] for record in records} >= {"python", "ipykernel", "tiny", "probe"}


def test_what_activation_scripts_set_is_known_to_kernels(built: Path) -> None:
    found = variables_of(built)
    assert found["CONDA_PREFIX"] == str(built)
    assert found["CONDA_DEFAULT_ENV"] == "lab"
    assert found["PATH"] == f"{built}/probe-bin:{built}/bin:${{PATH}}"
    assert found["PROBE_HOME"] == f"{built}/share/probe"
    assert found["PROBE_PRICE"] == "$$5"
    assert not {"PWD", "SHLVL", "_", "HOME"} & found.keys()


def test_the_second_run_starts_no_program(
    built: Path, fast_disk: Path, lock: EnvironmentLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "run", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr(process, "Servant", lambda *_, **__: pytest.fail("a program was started"))
    asked = request(fast_disk / "shared", lock)
    assert build_environment(asked, ignore) == Built("lab", str(built), "reused")
    assert environment_state(asked) == Built("lab", str(built), "ok")


def test_one_changed_package_is_built_beside_and_shares_the_rest(
    built: Path, fast_disk: Path, channel: Channel, lock: EnvironmentLock
) -> None:
    newer = make_lock(fast_disk, channel.root.as_uri(), *BASE[:2], "tiny=2", "probe")
    asked = request(fast_disk / "shared", newer)
    assert environment_state(asked).state == "stale"
    assert [package.name for package in missing(asked)] == ["tiny"]
    assert bytes_to_build(asked) == 3 * next(one.size for one in newer.packages if one.name == "tiny")
    second = build_environment(asked, ignore)
    assert evaluate(second.prefix, "import tiny; print(tiny.VERSION)") == "2.0"
    assert evaluate(built, "import tiny; print(tiny.VERSION)") == "1.5"
    library = f"lib/python{MINOR}/os.py"
    assert (Path(second.prefix) / library).stat().st_ino == (built / library).stat().st_ino
    assert build_environment(request(fast_disk / "shared", lock), ignore).state == "reused"


def test_packages_come_over_http_with_progress_and_a_short_failure_is_retried(
    channel: Channel, fast_path: Path, server: ChannelServer
) -> None:
    served = make_lock(fast_path, server.url)
    server.faults["tiny-1.5"] = [503, 503]
    events = Recorder()
    build_environment(request(fast_path, served), events)
    (planned,) = events.of(TransferPlanned)
    assert (planned.files, planned.bytes) == (len(served.packages), events.bytes_moved)
    assert server.asked("tiny-1.5") == 3
    server.requests.clear()
    again = request(fast_path, served, "other", offline=True)
    assert build_environment(again, ignore).state == "built"
    assert server.requests == []


@pytest.mark.parametrize("fault", ["404", "flip", "html", "truncated"])
def test_a_damaged_channel_stops_the_build_and_a_repaired_one_does_not(
    channel: Channel, fast_path: Path, server: ChannelServer, fault: str
) -> None:
    served = make_lock(fast_path, server.url, f"python={MINOR}", "tiny<2")
    old = build_environment(request(fast_path, served), ignore)
    newer = make_lock(fast_path, server.url, f"python={MINOR}", "tiny=2")
    file = "tiny-2.0"
    if fault == "truncated":
        server.truncate.add(file)
    else:
        flip = lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:]  # noqa: E731
        server.faults[file] = [
            404 if fault == "404" else flip if fault == "flip" else lambda _: b"<html>"
        ] * 9
    asked = request(fast_path, newer)
    with pytest.raises(EnvironmentFailedError) as caught:
        build_environment(asked, ignore)
    assert "could not install the packages of conda" in caught.value.what
    assert (asked.envs_dir / "lab").resolve() == Path(old.prefix)
    assert evaluate(old.prefix, "import tiny; print(tiny.VERSION)") == "1.5"
    server.faults.clear()
    server.truncate.clear()
    assert evaluate(build_environment(asked, ignore).prefix, "import tiny; print(tiny.VERSION)") == "2.0"
    assert temporary_folders(asked.home) == []


def test_a_wrong_digest_in_the_lock_is_refused(fast_path: Path, lock: EnvironmentLock) -> None:
    packages = tuple(replace(p, sha256="0" * 64) if p.name == "tiny" else p for p in lock.packages)
    with pytest.raises(EnvironmentFailedError, match="hash mismatch") as caught:
        build_environment(request(fast_path, replace(lock, packages=packages)), ignore)
    assert "other bytes than were locked" in caught.value.hint
    assert not list((fast_path / "home" / "envs").glob("lab-*/"))


def test_an_incomplete_lock_is_refused_before_anything_is_installed(
    fast_path: Path, lock: EnvironmentLock
) -> None:
    packages = tuple(p for p in lock.packages if p.name != "traitlets")
    with pytest.raises(EnvironmentFailedError, match="traitlets"):
        build_environment(request(fast_path, replace(lock, packages=packages)), ignore)


def test_damage_in_the_cache_is_healed_by_the_next_build(fast_path: Path, lock: EnvironmentLock) -> None:
    asked = request(fast_path, lock)
    first = Path(build_environment(asked, ignore).prefix)
    library = first / f"lib/python{MINOR}/textwrap.py"
    with library.open("r+b") as file:  # in place: the cache has the same inode
        file.write(b"BROKEN = 1\n")
    (cached,) = (asked.home / "pkgs" / "conda").glob("tiny-*/site-packages/tiny.py")
    cached.unlink()
    again = build_environment(replace(asked, name="other"), ignore)
    assert evaluate(again.prefix, "import textwrap, tiny; print(textwrap.dedent(' x'))") == "x"


@pytest.mark.fault(12)
def test_a_package_that_was_made_anew_under_its_old_name_is_not_taken_from_the_cache(
    channel: Channel, fast_path: Path
) -> None:
    mine = channel.copy(fast_path / "channel")
    first = make_lock(fast_path, mine.root.as_uri(), f"python={MINOR}", "tiny=1.5")
    build_environment(request(fast_path, first), ignore)
    remade = module("tiny", "1.5")
    remade.files["site-packages/tiny.py"] = Member(b"VERSION = 'made anew'\n")
    mine.add(remade)
    second = make_lock(fast_path, mine.root.as_uri(), f"python={MINOR}", "tiny=1.5")
    assert {one.sha256 for one in second.packages} != {one.sha256 for one in first.packages}
    built = build_environment(request(fast_path, second), ignore)
    assert evaluate(built.prefix, "import tiny; print(tiny.VERSION)") == "made anew"


def test_what_a_killed_build_left_in_the_cache_is_swept_and_unreadable_records_are_forgotten(
    fast_path: Path, lock: EnvironmentLock
) -> None:
    asked = request(fast_path, lock)
    left = asked.home / "pkgs" / "conda" / ".tiny-1.5-pyh0_0AbCdEf"
    left.mkdir(parents=True)
    (left / "half").touch()
    build_environment(asked, ignore)
    assert temporary_folders(asked.home) == []


def test_somebody_elses_environment_of_that_name_is_refused_and_nothing_is_built(
    fast_path: Path, lock: EnvironmentLock
) -> None:
    asked = request(fast_path, lock)
    shown = asked.conda_envs / "lab"
    shown.mkdir(parents=True)
    with pytest.raises(RefusedError, match="labsync did not make") as caught:
        build_environment(asked, ignore)
    assert f"mv {shown}" in caught.value.hint
    shown.rmdir()
    shown.symlink_to("/somewhere/else")
    with pytest.raises(RefusedError, match="/somewhere/else"):
        build_environment(asked, ignore)
    assert not asked.envs_dir.exists()


def test_a_path_too_long_for_binaries_is_refused(fast_path: Path, lock: EnvironmentLock) -> None:
    asked = replace(request(fast_path, lock), home=fast_path.joinpath(*["long" * 20] * 3))
    with pytest.raises(InvalidError, match="longer than the 240"):
        build_environment(asked, ignore)


def test_offline_nothing_is_asked_of_the_network(fast_path: Path, server: ChannelServer) -> None:
    served = make_lock(fast_path, server.url, f"python={MINOR}", "tiny<2")
    server.requests.clear()
    with pytest.raises(EnvironmentFailedError, match="could not choose") as unknown:
        make_lock(fast_path / "another", server.url, f"python={MINOR}", offline=True)
    assert "--offline" in unknown.value.hint
    again = make_lock(fast_path, server.url, f"python={MINOR}", "tiny<2", offline=True)
    assert again == served
    with pytest.raises(EnvironmentFailedError, match="could not install") as caught:
        build_environment(request(fast_path, served, offline=True), ignore)
    assert "--offline" in caught.value.hint
    assert server.requests == []


def test_a_gpu_environment_is_built_without_a_gpu_and_says_so(channel: Channel, fast_path: Path) -> None:
    locked = make_lock(fast_path, channel.root.as_uri(), f"python={MINOR}", "gpulib", target="{cuda: '99.4'}")
    events = Recorder()
    built = build_environment(request(fast_path, locked, imports=("gpulib",)), events)
    assert evaluate(built.prefix, "import gpulib; print(gpulib.BUILD)") == "cuda124_1"
    notes = [note.message for note in events.of(Note) if note.level == "warning"]
    has_gpu = Path("/proc/driver/nvidia/version").exists()
    assert has_gpu or any("CUDA 12.4" in note and "has no GPU" in note for note in notes)


def test_an_environment_for_a_newer_glibc_is_refused(channel: Channel, fast_path: Path) -> None:
    locked = make_lock(fast_path, channel.root.as_uri(), f"python={MINOR}", "newer", target="{glibc: '9.1'}")
    with pytest.raises(EnvironmentFailedError, match="`newer` needs glibc 9"):
        build_environment(request(fast_path, locked), ignore)


def test_two_builds_at_once_make_one_environment(fast_path: Path, lock: EnvironmentLock) -> None:
    states: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: states.append(build_environment(request(fast_path, lock), ignore).state)
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states) == ["built", "reused", "reused"]


def test_a_worker_that_goes_silent_is_ended(
    fast_path: Path, server: ChannelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = make_lock(fast_path, server.url, f"python={MINOR}", "tiny<2")
    stop = threading.Event()
    server.faults["python-3"] = [lambda data: (stop.wait(30), data)[1]]
    monkeypatch.setattr(rattler_client, "PATIENCE", 1.0)
    with pytest.raises(EnvironmentFailedError, match="nothing moved for 1 s"):
        build_environment(request(fast_path, served), ignore)
    stop.set()


def test_wheels_and_labsync_are_whole_in_it(built: Path) -> None:
    assert list(damaged_files(dist_infos(built)["labsync"])) == []
