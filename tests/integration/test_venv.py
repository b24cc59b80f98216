"""Environments built for real: uv, a new interpreter, wheels and library trees made here, no network."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from labsync import process
from labsync.digest import sha256_file
from labsync.env.base import EnvironmentRequest, Interpreter, Library
from labsync.env.build import build_environment, environment_state
from labsync.env.lock import EnvironmentLock, LockedPackage, current_platform, read_env_lock
from labsync.env.lock_text import write_env_lock
from labsync.env.record import damaged_files, dist_infos, site_packages
from labsync.env.resolve import PackageIndexes, Target, lock_pip
from labsync.env.spec import parse_spec
from labsync.env.tools import Tools
from labsync.errors import EnvironmentFailedError, InvalidError, RefusedError
from labsync.events import ignore
from labsync.report import Built
from tests.fakes.wheels import make_library, make_wheel

COMMIT = "dca509fe793f601edb92606367a655c15ac00fdf"
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


def locked(*wheels: Path, python: str = MINOR) -> EnvironmentLock:
    packages = []
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        packages.append(LockedPackage(name, version, wheel.as_uri(), sha256_file(wheel)[0]))
    return EnvironmentLock(current_platform(), "", tuple(packages), python)


def offline_tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path / "home", tmp_path / "lock.log", offline=True)


def evaluate(prefix: str, code: str) -> str:
    done = process.run([f"{prefix}/bin/python", "-c", code])
    assert done.returncode == 0, done.error_text
    return done.stdout.decode().strip()


@pytest.fixture
def asked(tmp_path: Path) -> EnvironmentRequest:
    wheel = make_wheel(tmp_path / "wheels", "tiny", "1.0", script="tiny:main")
    return EnvironmentRequest(
        "lab", lock=locked(wheel), imports=("tiny",), home=tmp_path / "home", offline=True
    )


def test_locked_wheels_and_labsync_are_in_the_environment(asked: EnvironmentRequest) -> None:
    built = build_environment(asked, ignore)
    assert built.state == "built"
    assert evaluate(built.prefix, "import tiny; print(tiny.VERSION)") == "1.0"
    where = evaluate(built.prefix, "import labsync; print(labsync.__file__)")
    assert where.startswith(built.prefix)
    assert sorted(dist_infos(Path(built.prefix))) == ["labsync", "tiny"]
    for info in dist_infos(Path(built.prefix)).values():
        assert list(damaged_files(info)) == []
    assert (asked.envs_dir / "lab").resolve() == Path(built.prefix)
    assert sorted(path.name for path in asked.envs_dir.iterdir()) == [
        ".lab.lock",
        ".lab.versions",
        "lab",
        Path(built.prefix).name,
    ]
    assert process.run([f"{built.prefix}/bin/tiny-raw"]).stdout == b"raw\n"


def test_the_second_run_starts_no_program_and_changes_nothing(
    asked: EnvironmentRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build_environment(asked, ignore)
    monkeypatch.setattr(process, "run", lambda *_, **__: pytest.fail("a program was started"))
    assert build_environment(asked, ignore) == Built("lab", first.prefix, "reused")
    assert environment_state(asked).state == "ok"


def test_a_module_that_is_asked_for_later_is_imported_without_a_new_build(asked: EnvironmentRequest) -> None:
    first = build_environment(asked, ignore)
    more = replace(asked, imports=("tiny", "json"))
    assert build_environment(more, ignore) == Built("lab", first.prefix, "reused")
    with pytest.raises(EnvironmentFailedError, match="`absent`"):
        build_environment(replace(asked, imports=("absent",)), ignore)
    assert environment_state(asked).state == "ok"
    assert "json" in (Path(first.prefix) / "labsync-stamp.json").read_text()


def test_an_inheriting_environment_sees_what_the_running_python_sees(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheels", "click", "0.0.1")
    plain = tmp_path / "site"
    (plain / "hidden").mkdir(parents=True)
    (plain / "hidden" / "editable_module.py").write_text("HERE = 1\n")
    (plain / "editable.pth").write_text(f"{plain}/hidden\n")
    running = Interpreter.running()
    python = replace(running, site_packages=(*running.site_packages, str(plain)))
    request = EnvironmentRequest(
        "lab",
        inherit=True,
        lock=locked(wheel),
        imports=("tqdm", "editable_module"),
        home=tmp_path / "home",
        offline=True,
        python=python,
    )
    built = build_environment(request, ignore)
    assert evaluate(built.prefix, "import click; print(click.VERSION)") == "0.0.1"
    assert evaluate(built.prefix, "import labsync; print(labsync.__file__)").startswith(built.prefix)
    assert evaluate(built.prefix, "import sys; print(sys.prefix)") == built.prefix
    # torch for the CPU and torchvision from the package index are in the running Python
    assert evaluate(built.prefix, "import torchvision; print(torchvision.ops.nms is not None)") == "True"


def test_a_git_library_is_installed_with_its_provenance_and_its_tree_untouched(tmp_path: Path) -> None:
    tree = make_library(tmp_path / "lib", "tinylib")
    (tree / ".git").mkdir()
    before = sorted(path.relative_to(tree) for path in tree.rglob("*"))
    library = Library("tinylib", tree, "git+https://user:word@git.example/tinylib", COMMIT, "main")
    request = EnvironmentRequest(
        "lab", libraries=(library,), imports=("tinylib",), home=tmp_path / "home", offline=True
    )
    built = build_environment(request, ignore)
    assert evaluate(built.prefix, "import tinylib; print(tinylib.ANSWER)") == "42"
    code = "import importlib.metadata as m; print(m.distribution('tinylib').read_text('direct_url.json'))"
    provenance = evaluate(built.prefix, code)
    assert json.loads(provenance) == {
        "url": "https://git.example/tinylib",
        "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "main"},
    }
    assert list(damaged_files(dist_infos(Path(built.prefix))["tinylib"])) == []
    assert sorted(path.relative_to(tree) for path in tree.rglob("*")) == before


def test_a_library_is_built_once_for_its_commit_and_the_same_tree_gives_the_same_bytes(
    tmp_path: Path,
) -> None:
    tree = make_library(tmp_path / "lib", "tinylib")
    library = Library("tinylib", tree, "https://git.example/tinylib", COMMIT)
    request = EnvironmentRequest("lab", libraries=(library,), home=tmp_path / "home", offline=True)
    build_environment(request, ignore)
    (wheel,) = (tmp_path / "home" / "pkgs" / "libraries").rglob("*.whl")
    assert wheel.parent.relative_to(tmp_path / "home" / "pkgs" / "libraries").parts == (
        "tinylib",
        COMMIT,
        "any",
    )
    os.utime(tree / "tinylib" / "__init__.py", (2e9, 2e9))
    build_environment(replace(request, home=tmp_path / "other"), ignore)
    (again,) = (tmp_path / "other" / "pkgs" / "libraries").rglob("*.whl")
    assert again.read_bytes() == wheel.read_bytes()
    (tree / "tinylib" / "__init__.py").write_text(
        "ANSWER = 0\n"
    )  # not looked at any more: the wheel is there
    built = build_environment(replace(request, name="more"), ignore)
    assert evaluate(built.prefix, "import tinylib; print(tinylib.ANSWER)") == "42"


def test_a_library_that_needs_what_is_not_here_says_so_offline(tmp_path: Path) -> None:
    tree = make_library(tmp_path / "lib", "tinylib")
    text = (tree / "pyproject.toml").read_text()
    (tree / "pyproject.toml").write_text(text.replace('"setuptools>=61"', '"no-such-builder>=3"'))
    library = Library("tinylib", tree, "https://git.example/tinylib", COMMIT)
    request = EnvironmentRequest("lab", libraries=(library,), home=tmp_path / "home", offline=True)
    with pytest.raises(EnvironmentFailedError, match="no-such-builder>=3") as caught:
        build_environment(request, ignore)
    assert "without `--offline`" in caught.value.hint


@pytest.mark.parametrize("name", ["tiny", "labsync"])
def test_a_library_never_replaces_what_the_lock_or_labsync_installed(
    asked: EnvironmentRequest, name: str, tmp_path: Path
) -> None:
    tree = make_library(tmp_path / "lib", name)
    library = Library("other", tree, "https://git.example/other", COMMIT)
    with pytest.raises(EnvironmentFailedError, match=f"installs `{name}`"):
        build_environment(replace(asked, libraries=(library,)), ignore)


def test_a_wrong_digest_stops_the_build_and_the_old_environment_stays(asked: EnvironmentRequest) -> None:
    assert asked.lock
    old = build_environment(asked, ignore)
    wrong = replace(asked.lock, packages=(replace(asked.lock.packages[0], sha256="0" * 64),))
    with pytest.raises(EnvironmentFailedError) as caught:
        build_environment(replace(asked, lock=wrong), ignore)
    assert caught.value.exit_code == 13
    assert "install the locked packages" in caught.value.what
    assert "0" * 64 in caught.value.what
    log = Path(caught.value.path)
    assert str(log) in caught.value.hint
    assert "ash mismatch" in log.read_text()
    assert (asked.envs_dir / "lab").resolve() == Path(old.prefix)
    assert [path.name for path in asked.envs_dir.glob("lab-*") if path.is_dir()] == [Path(old.prefix).name]
    assert environment_state(asked).state == "ok"


def test_a_module_that_does_not_import_stops_the_build(asked: EnvironmentRequest, tmp_path: Path) -> None:
    broken = make_wheel(
        tmp_path / "wheels", "broken", "1.0", {"broken.py": "print('noise')\nraise OSError('no libGL.so')\n"}
    )
    request = replace(asked, lock=locked(broken), imports=("broken", "absent"))
    with pytest.raises(EnvironmentFailedError, match=r"no libGL\.so") as caught:
        build_environment(request, ignore)
    assert "`absent`" in caught.value.what
    assert environment_state(request).state == "missing"


@pytest.mark.fault(12)
def test_a_killed_build_is_swept_away_and_done_again(asked: EnvironmentRequest) -> None:
    first = build_environment(asked, ignore)
    prefix = Path(first.prefix)
    (prefix / "labsync-stamp.json").unlink()  # as if killed right before the end
    (prefix / "bin" / "python").unlink()
    leftover = asked.envs_dir / ("lab-" + "0" * 12)
    leftover.mkdir()
    (leftover / "half").touch()
    foreign = asked.envs_dir / ("labs-" + "0" * 12)
    foreign.mkdir()
    assert environment_state(asked).state == "stale"
    assert build_environment(asked, ignore) == Built("lab", first.prefix, "built")
    assert evaluate(first.prefix, "import tiny, labsync; print('ok')") == "ok"
    assert not leftover.exists()
    assert foreign.exists()


def test_an_environment_that_lost_files_is_built_again(asked: EnvironmentRequest) -> None:
    first = build_environment(asked, ignore)
    (dist_infos(Path(first.prefix))["tiny"] / "RECORD").unlink()
    assert build_environment(asked, ignore).state == "built"


def test_an_edit_in_an_old_environment_does_not_reach_the_next_one(asked: EnvironmentRequest) -> None:
    first = build_environment(asked, ignore)
    module = site_packages(Path(first.prefix)) / "tiny.py"
    with module.open(
        "r+b"
    ) as file:  # in place, as an editor without a rename does; uv's cache shares the bytes
        file.write(b"BROKEN")
    again = build_environment(replace(asked, name="other", offline=False), ignore)
    assert evaluate(again.prefix, "import tiny; print(tiny.VERSION)") == "1.0"


def test_a_new_lock_makes_a_new_prefix_and_the_old_one_stays_for_running_kernels(
    asked: EnvironmentRequest, tmp_path: Path
) -> None:
    old = build_environment(asked, ignore)
    newer = replace(asked, lock=locked(make_wheel(tmp_path / "wheels", "tiny", "2.0")))
    assert environment_state(newer) == Built("lab", old.prefix, "stale")
    new = build_environment(newer, ignore)
    assert new.prefix != old.prefix
    assert evaluate(str(asked.envs_dir / "lab"), "import tiny; print(tiny.VERSION)") == "2.0"
    assert evaluate(old.prefix, "import tiny; print(tiny.VERSION)") == "1.0"
    assert build_environment(asked, ignore) == Built("lab", old.prefix, "reused")
    assert (asked.envs_dir / "lab").resolve() == Path(old.prefix)


def test_a_folder_of_somebody_else_is_refused_before_anything_is_built(asked: EnvironmentRequest) -> None:
    (asked.envs_dir / "lab" / "bin").mkdir(parents=True)
    with pytest.raises(RefusedError) as caught:
        build_environment(asked, ignore)
    assert caught.value.exit_code == 12
    assert [path.name for path in asked.envs_dir.iterdir()] == ["lab"]


def test_a_lock_for_another_python_or_with_conda_packages_is_refused(asked: EnvironmentRequest) -> None:
    assert asked.lock
    with pytest.raises(InvalidError, match=r"is for Python 2\.7"):
        build_environment(replace(asked, lock=replace(asked.lock, python="2.7")), ignore)
    conda = replace(asked.lock.packages[0], manager="conda")
    with pytest.raises(InvalidError, match="packages of conda: tiny"):
        build_environment(replace(asked, lock=replace(asked.lock, packages=(conda,))), ignore)


def test_two_builds_at_once_make_one_environment(asked: EnvironmentRequest) -> None:
    states: list[str] = []
    threads = [
        threading.Thread(target=lambda: states.append(build_environment(asked, ignore).state))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states) == ["built", "reused"]


def test_misleading_variables_do_not_reach_the_build(
    asked: EnvironmentRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tiny.py").write_text("VERSION = 'from PYTHONPATH'\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    monkeypatch.setenv("UV_CONSTRAINT", str(tmp_path / "missing.txt"))
    built = build_environment(asked, ignore)
    assert sorted(dist_infos(Path(built.prefix))) == ["labsync", "tiny"]


def test_uv_resolves_to_wheels_with_digests_and_the_lock_can_be_built(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "tiny", "1.0")
    newest = make_wheel(wheels, "tiny", "1.5")
    make_wheel(wheels, "tiny", "2.0")
    spec = parse_spec(f"dependencies: [python>={MINOR}, {{pip: ['tiny<2']}}]\n", "envs/lab.yaml")
    indexes = PackageIndexes(find_links=(str(wheels),), no_index=True)
    lock = lock_pip(spec, Target(Interpreter.running().version), offline_tools(tmp_path), indexes)
    digest = hashlib.sha256(newest.read_bytes()).hexdigest()
    assert lock.packages == (LockedPackage("tiny", "1.5", newest.as_uri(), digest),)
    assert (lock.python, lock.content_hash, lock.sources) == (
        MINOR,
        spec.content_hash("linux-64"),
        ("lab.yaml",),
    )
    path = tmp_path / "lab.lock.yaml"
    write_env_lock(path, lock)
    request = EnvironmentRequest(
        "lab", lock=read_env_lock(path), imports=("tiny",), home=tmp_path / "home", offline=True
    )
    assert evaluate(build_environment(request, ignore).prefix, "import tiny; print(tiny.VERSION)") == "1.5"


def test_what_cannot_be_resolved_is_told_in_uvs_words(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "tiny", "1.0")
    indexes = PackageIndexes(find_links=(str(tmp_path / "wheels"),), no_index=True)
    spec = parse_spec("dependencies: [{pip: ['tiny>=9']}]\n", "lab.yaml")
    with pytest.raises(EnvironmentFailedError, match="tiny>=9"):
        lock_pip(spec, Target(MINOR), offline_tools(tmp_path), indexes)
    old = parse_spec("dependencies: [python=2.7, {pip: [tiny]}]\n", "lab.yaml")
    with pytest.raises(InvalidError, match=r"asks for `python=2\.7`"):
        lock_pip(old, Target(MINOR), offline_tools(tmp_path), indexes)
    with pytest.raises(InvalidError, match="platform `win-64`"):
        lock_pip(spec, Target(MINOR, "win-64"), offline_tools(tmp_path), indexes)


def test_a_source_distribution_is_never_taken(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "tiny-1.0.tar.gz").write_bytes(b"x")
    indexes = PackageIndexes(find_links=(str(wheels),), no_index=True)
    spec = parse_spec("dependencies: [{pip: [tiny]}]\n", "lab.yaml")
    with pytest.raises(EnvironmentFailedError):
        lock_pip(spec, Target(MINOR), offline_tools(tmp_path), indexes)


def test_a_full_path_for_uv_is_found_without_the_path_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from labsync.env.tools import find_uv

    monkeypatch.setenv("PATH", "/nowhere")
    assert os.access(find_uv(), os.X_OK)
