"""Versions of an environment: rolled back, collected, repaired, changed by hand; and locks of pip's part."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conda_lock.lockfile import parse_conda_lock_file

from labsync import process
from labsync.digest import sha256_file
from labsync.env.base import Library
from labsync.env.build import build_environment
from labsync.env.conda_lock import Held, lock_conda
from labsync.env.lock import LockedPackage, parse_env_lock, read_env_lock
from labsync.env.lock_text import format_env_lock, write_env_lock
from labsync.env.repair import verify_environment
from labsync.env.resolve import PackageIndexes
from labsync.env.spec import parse_spec
from labsync.env.stamp import installed_by_hand
from labsync.env.tools import Tools, find_uv
from labsync.env.versions import previous, roll_back
from labsync.errors import EnvironmentFailedError, IntegrityError, NotFoundError
from labsync.events import ignore
from tests.fakes.channel import MINOR, module
from tests.fakes.conda_lab import evaluate, make_lock, repaired, request, spec_text
from tests.fakes.wheels import make_library, make_wheel

if TYPE_CHECKING:
    from labsync.env.base import EnvironmentRequest
    from labsync.env.lock import EnvironmentLock
    from tests.fakes.channel import Channel

PYTHON = f"python={MINOR}"
BY_HAND = (("tiny", "9.0"), ("by_hand", "1.0"))
COMMIT = "dca509fe793f601edb92606367a655c15ac00fdf"


@pytest.fixture(scope="module")
def locks(channel: Channel, fast_disk: Path) -> dict[str, EnvironmentLock]:
    """Three locks that differ in one package."""
    url = channel.root.as_uri()
    return {
        version: make_lock(fast_disk, url, PYTHON, f"tiny={version}") for version in ("1.0", "1.5", "2.0")
    }


def with_wheels(lock: EnvironmentLock, *wheels: Path) -> EnvironmentLock:
    rows = []
    for path in wheels:
        name, version = path.name.split("-")[:2]
        sha256, size = sha256_file(path)
        rows.append(LockedPackage(name, version, path.as_uri(), sha256, size=size))
    return replace(lock, packages=(*lock.packages, *rows))


def build(asked: EnvironmentRequest, lock: EnvironmentLock) -> Path:
    return Path(build_environment(replace(asked, lock=lock), ignore).prefix)


def test_the_previous_version_is_back_at_once_and_forward_again(
    fast_path: Path, locks: dict[str, EnvironmentLock], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(fast_path, locks["1.0"])
    with pytest.raises(NotFoundError, match="no previous version"):
        roll_back(asked.envs_dir, "lab", ignore)
    old, new = build(asked, locks["1.0"]), build(asked, locks["1.5"])
    monkeypatch.setattr(process, "run", lambda *_, **__: pytest.fail("a program was started"))
    assert roll_back(asked.envs_dir, "lab", ignore).prefix == str(old)
    assert (asked.conda_envs / "lab").resolve() == old
    assert roll_back(asked.envs_dir, "lab", ignore).prefix == str(new)


def test_old_versions_go_but_not_the_previous_one_nor_one_that_runs_nor_a_kernels(
    fast_path: Path, locks: dict[str, EnvironmentLock]
) -> None:
    asked = request(fast_path, locks["1.0"])
    first = build(asked, locks["1.0"])
    with subprocess.Popen(
        [f"{first}/bin/python", "-c", "print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdout
        running.stdout.readline()
        second, third = build(asked, locks["1.5"]), build(asked, locks["2.0"])
        assert first.exists(), "a process runs in it"
        running.communicate(b"\n")
    assert previous(asked.envs_dir, "lab") == second
    cache = asked.home / "pkgs" / "conda"
    assert {path.name[:8] for path in cache.glob("tiny-*_0")} == {"tiny-1.0", "tiny-1.5", "tiny-2.0"}
    library = make_library(fast_path / "lib", "extra")
    more = replace(asked, libraries=(Library("extra", library, "https://git.example/extra", COMMIT),))
    fourth = build(replace(more, spared=(second,)), locks["2.0"])
    assert [path.exists() for path in (first, second, third, fourth)] == [False, True, True, True]
    assert {path.name[:8] for path in cache.glob("tiny-*_0")} == {"tiny-1.5", "tiny-2.0"}


def test_damage_is_found_named_and_repaired_package_by_package(
    fast_path: Path, locks: dict[str, EnvironmentLock]
) -> None:
    wheel = make_wheel(fast_path / "wheels", "wheeled", "1.0")
    library = Library("extra", make_library(fast_path / "lib", "extra"), "https://git.example/extra", COMMIT)
    lock = with_wheels(locks["1.5"], wheel)
    asked = request(fast_path, lock, libraries=(library,), imports=("tiny", "wheeled", "extra"))
    prefix = build(asked, lock)
    assert verify_environment(asked.envs_dir, "lab")[0].state == "ok"
    site = prefix / f"lib/python{MINOR}/site-packages"
    (site / "tiny.py").write_bytes(b"VERSION = 'wrong'\n")  # in place: the cache shares the bytes
    (prefix / "bin" / "python3").unlink()
    (prefix / "bin" / "python3").symlink_to("python")  # another link than the package's
    (site / "wheeled.py").write_bytes(b"broken")
    (site / "extra" / "__init__.py").unlink()
    (site / "labsync" / "errors.py").write_bytes(b"")
    state, damage = verify_environment(asked.envs_dir, "lab")
    assert state.state == "damaged"
    assert damage.conda.keys() == {"python", "tiny"}
    assert damage.pip.keys() == {"wheeled", "extra", "labsync"}
    assert "5 files damaged or missing" in state.reason
    done = repaired(replace(asked, lock=lock))
    assert (done.state, done.prefix) == ("repaired", str(prefix))
    assert evaluate(prefix, "import tiny, wheeled, extra, labsync; print(tiny.VERSION)") == "1.5"
    assert verify_environment(asked.envs_dir, "lab")[0].state == "ok"
    assert repaired(replace(asked, lock=lock)).state == "ok"


def test_what_somebody_installs_by_hand_is_named_and_not_repaired(
    fast_path: Path, locks: dict[str, EnvironmentLock]
) -> None:
    asked = request(fast_path, locks["1.5"])
    prefix = build(asked, locks["1.5"])
    assert installed_by_hand(prefix) == ()
    wheels = [
        make_wheel(fast_path / "wheels", "tiny", "9.0"),
        make_wheel(fast_path / "wheels", "by_hand", "1.0"),
    ]
    argv = [find_uv(), "pip", "install", "-q", "--no-index", "--python", f"{prefix}/bin/python"]
    assert process.run([*argv, *map(str, wheels)]).returncode == 0
    assert installed_by_hand(prefix) == ("by-hand 1.0", "tiny 9.0")
    (prefix / f"lib/python{MINOR}/site-packages/by_hand.py").unlink()
    with pytest.raises(IntegrityError, match="`by-hand`"):
        repaired(asked)
    assert evaluate(prefix, "import tiny; print(tiny.VERSION)") == "1.5"


def test_a_wheel_of_what_conda_installed_is_refused(
    fast_path: Path, locks: dict[str, EnvironmentLock]
) -> None:
    lock = with_wheels(locks["1.5"], make_wheel(fast_path / "wheels", "tiny", "9.0"))
    with pytest.raises(EnvironmentFailedError, match="`tiny` is locked as a package of conda"):
        build_environment(request(fast_path, lock), ignore)


def tools(fast_path: Path) -> Tools:
    return Tools(fast_path / "lock-home", fast_path / "lock.log")


def test_the_wheels_beside_conda_respect_what_conda_installs(channel: Channel, fast_path: Path) -> None:
    wheels = fast_path / "wheels"
    make_wheel(wheels, "heavy", "1.0")
    for version in ("1.0", "1.5", "9.0"):
        make_wheel(wheels, "tiny", version, needs="heavy")  # as PyPI's torch needs CUDA's wheels
    make_wheel(wheels, "wheeled", "1.0", needs="tiny>=1")
    indexes = PackageIndexes(find_links=(str(wheels),), no_index=True)
    text = spec_text(channel.root.as_uri(), PYTHON, "tiny=1.5", pip=("wheeled",))
    spec = parse_spec(text, "lab.yaml", "conda")
    with pytest.raises(EnvironmentFailedError, match="pip"):
        lock_conda(spec, tools(fast_path), indexes=indexes)  # `pip` is not in the channel
    channel = channel.copy(fast_path / "channel")
    channel.add(module("pip", "25.0"))
    spec = parse_spec(text.replace(spec.channels[0], channel.root.as_uri()), "lab.yaml", "conda")
    lock = lock_conda(spec, tools(fast_path), indexes=indexes)
    assert [(one.name, one.version) for one in lock.of("pip")] == [("wheeled", "1.0")]
    built = build_environment(request(fast_path, lock, imports=("wheeled", "tiny")), ignore)
    assert evaluate(built.prefix, "import tiny; print(tiny.VERSION)") == "1.5"
    make_wheel(wheels, "other", "1.0", needs="tiny>=9")
    bad = parse_spec(
        spec_text(channel.root.as_uri(), PYTHON, "tiny=1.5", pip=("other",)), "lab.yaml", "conda"
    )
    with pytest.raises(EnvironmentFailedError, match="tiny"):
        lock_conda(bad, tools(fast_path), indexes=indexes)


def test_with_an_older_lock_only_what_is_free_moves(channel: Channel, fast_path: Path) -> None:
    mine = channel.copy(fast_path / "channel")
    url = mine.root.as_uri()

    def lock(*lines: str, held: Held | None = None) -> dict[str, str]:
        spec = parse_spec(spec_text(url, PYTHON, *lines), "lab.yaml", "conda")
        found = lock_conda(spec, tools(fast_path), held)
        write_env_lock(fast_path / "lab.lock.yaml", found)
        return {one.name: one.version for one in found.packages}

    before = lock("tiny", "gpulib=1.0")
    assert before["tiny"] == "2.0"
    mine.add(module("tiny", "3.0"), module("more", "1.0"), module("gpulib", "1.1", build="cpu_0"))
    held = Held(read_env_lock(fast_path / "lab.lock.yaml"), frozenset({"more"}))
    assert lock("tiny", "gpulib", "more", held=held) == before | {"more": "1.0"}
    assert lock("tiny", "gpulib", "more")["tiny"] == "3.0"


def test_conda_locks_own_models_read_the_lock_and_render_it(
    fast_path: Path, locks: dict[str, EnvironmentLock]
) -> None:
    lock = with_wheels(locks["1.5"], make_wheel(fast_path / "wheels", "wheeled", "1.0"))
    path = fast_path / "conda-lock.yml"
    write_env_lock(path, lock)
    read = parse_conda_lock_file(path)
    assert {(one.name, one.url, one.hash.sha256) for one in read.package} == {
        (one.name, one.url, one.sha256) for one in lock.packages
    }
    assert read.metadata.content_hash == {lock.platform: lock.content_hash}
    assert parse_env_lock(format_env_lock(lock), "x", lock.platform) == replace(
        lock, packages=tuple(sorted(lock.packages, key=lambda one: (one.manager, one.name)))
    )
    render = shutil.which("conda-lock", path=str(Path(sys.executable).parent))
    assert render
    argv = [render, "render", "--kind", "explicit", "--platform", lock.platform, path.name]
    done = process.run(argv, cwd=fast_path)
    assert done.returncode == 0, done.error_text
    explicit = (fast_path / f"conda-{lock.platform}.lock").read_text()
    assert "@EXPLICIT" in explicit
    assert all(f"{one.url}#{one.md5}" in explicit for one in lock.of("conda"))
