from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

import labsync
from labsync.env.activation import activation
from labsync.env.base import EnvironmentRequest, Library
from labsync.env.build import build_environment, environment_state
from labsync.env.library import copy_tree
from labsync.env.lock import EnvironmentLock, LockedPackage
from labsync.env.package import build_wheel, package_files
from labsync.env.record import damaged_files, dist_infos, write_provenance
from labsync.env.stamp import hash_of, inputs_of
from labsync.env.switch import check_name, current, switch
from labsync.env.tools import Tools
from labsync.errors import EnvironmentFailedError, InvalidError, RefusedError
from labsync.events import ignore
from labsync.snapshot import FileEntry, Snapshot
from tests.fakes.wheels import make_library, make_wheel

COMMIT = "dca509fe793f601edb92606367a655c15ac00fdf"
SIX = LockedPackage("six", "1.16.0", "https://files.example/six-1.16.0-py3-none-any.whl", "a" * 64)


def test_manager_conda_without_a_lock_of_its_packages_says_so(tmp_path: Path) -> None:
    request = EnvironmentRequest(
        "lab", manager="conda", home=tmp_path / "home", conda_envs=tmp_path / "conda", offline=True
    )
    with pytest.raises(InvalidError, match="no packages of conda") as caught:
        build_environment(request, ignore)
    assert "labsync env lock" in caught.value.hint


@pytest.mark.parametrize("name", ["base", "default", "studiolab", "studiolab-safemode", "../x", "Upper", ""])
def test_names_of_the_machine_and_odd_names_are_refused(name: str) -> None:
    with pytest.raises(RefusedError):
        check_name(name)


def test_the_switch_moves_only_a_link_of_its_own(tmp_path: Path) -> None:
    old, new = tmp_path / ("lab-" + "0" * 12), tmp_path / ("lab-" + "1" * 12)
    for prefix in (old, new):
        prefix.mkdir()
    assert current(tmp_path, "lab") is None
    switch(tmp_path, "lab", old)
    switch(tmp_path, "lab", new)
    assert current(tmp_path, "lab") == new
    assert (tmp_path / "lab").resolve() == new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab", old.name, new.name]


@pytest.mark.parametrize("kind", ["folder", "file", "link", "link of another name"])
def test_what_labsync_did_not_make_is_never_replaced(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "lab"
    match kind:
        case "folder":
            (place / "bin").mkdir(parents=True)
        case "file":
            place.write_text("mine")
        case "link":
            place.symlink_to("/usr")
        case _:
            place.symlink_to("other-" + "0" * 12)
    with pytest.raises(RefusedError) as caught:
        switch(tmp_path, "lab", tmp_path / ("lab-" + "1" * 12))
    assert "mv " in caught.value.hint
    assert os.path.lexists(place)
    with pytest.raises(RefusedError):
        current(tmp_path, "lab")


def test_every_input_changes_the_hash_and_order_does_not(tmp_path: Path) -> None:
    other = LockedPackage("numpy", "2.0", "https://files.example/numpy-2.0-py3-none-any.whl", "b" * 64)
    library = Library("lib", tmp_path, "https://git.example/lib", COMMIT)

    def of(packages: tuple[LockedPackage, ...] = (SIX, other), library: Library = library) -> str:
        lock = EnvironmentLock("linux-64", "", packages)
        return hash_of(inputs_of(EnvironmentRequest("lab", lock=lock, libraries=(library,), home=tmp_path)))

    base = of()
    assert of((other, SIX)) == base
    moved = LockedPackage("six", "1.16.0", SIX.url, "c" * 64)
    assert len({base, of((SIX,)), of((moved, other))}) == 3
    assert of(library=Library("lib", tmp_path, "https://git.example/lib", "0" * 40)) != base
    assert of(library=Library("lib", tmp_path / "elsewhere", "https://git.example/lib", COMMIT)) == base
    plain, inheriting, offline = (
        EnvironmentRequest("lab", inherit=inherit, home=tmp_path, offline=offline)
        for inherit, offline in ((False, False), (True, False), (False, True))
    )
    assert inputs_of(plain) == inputs_of(offline)
    assert inputs_of(plain) != inputs_of(inheriting)


def test_the_state_of_an_environment_that_was_never_built(tmp_path: Path) -> None:
    request = EnvironmentRequest("lab", home=tmp_path)
    state = environment_state(request)
    assert state.state == "missing"
    assert state.prefix.startswith(str(tmp_path / "envs" / "lab-"))
    assert not (tmp_path / "envs").exists()


def test_labsyncs_wheel_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = build_wheel(tmp_path / "a"), build_wheel(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        archive.extractall(tmp_path / "site" / "lib" / "python3.11" / "site-packages")
    info = dist_infos(tmp_path / "site")["labsync"]
    assert list(damaged_files(info)) == []
    assert "Requires-Dist" not in (info / "METADATA").read_text()
    names = {name for name, _ in package_files()}
    assert {"labsync/__init__.py", "labsync/py.typed", "labsync/env/build.py"} <= names
    assert not any("__pycache__" in name for name in names)
    assert labsync.__version__ in first.name


def installed(tmp_path: Path) -> Path:
    prefix = tmp_path / "prefix"
    with zipfile.ZipFile(make_wheel(tmp_path, "tiny", "1.0")) as archive:
        archive.extractall(prefix / "lib" / "python3.11" / "site-packages")
    return dist_infos(prefix)["tiny"]


def test_damage_of_an_installed_package_is_seen(tmp_path: Path) -> None:
    info = installed(tmp_path)
    assert list(damaged_files(info)) == []
    module = info.parent / "tiny.py"
    module.write_text("VERSION = '2.0'\n")
    assert list(damaged_files(info)) == [module]
    module.unlink()
    assert list(damaged_files(info)) == [module]


def test_provenance_replaces_what_the_installer_wrote_and_the_record_stays_right(tmp_path: Path) -> None:
    info = installed(tmp_path)
    for commit in ("0" * 40, COMMIT):
        write_provenance(info, "https://git.example/lib", commit, "v1")
    assert list(damaged_files(info)) == []
    assert (info / "RECORD").read_text().count("direct_url.json") == 1
    assert COMMIT in (info / "direct_url.json").read_text()


def entry(tree: Path, path: str) -> FileEntry:
    from labsync.digest import sha256_file

    return FileEntry(path, *sha256_file(tree / path))


def test_a_library_is_copied_as_its_snapshot_says(tmp_path: Path) -> None:
    tree = make_library(tmp_path / "tree", "lib")
    snapshot = Snapshot.of([entry(tree, "lib/__init__.py"), entry(tree, "pyproject.toml")])
    (tree / "stray.py").write_text("x")
    copy_tree(Library("lib", tree, "https://git.example/lib", COMMIT, snapshot=snapshot), tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*.*")) == ["__init__.py", "pyproject.toml"]


def test_a_library_that_was_changed_is_not_installed_as_its_commit(tmp_path: Path) -> None:
    tree = make_library(tmp_path / "tree", "lib")
    snapshot = Snapshot.of([entry(tree, "lib/__init__.py")])
    library = Library("lib", tree, "https://git.example/lib", COMMIT, snapshot=snapshot)
    (tree / "lib" / "__init__.py").write_text("ANSWER = 43\n")
    with pytest.raises(EnvironmentFailedError, match="is not the file of commit dca509fe793f") as caught:
        copy_tree(library, tmp_path / "copy")
    assert "--force" in caught.value.hint
    (tree / "lib" / "__init__.py").unlink()
    with pytest.raises(EnvironmentFailedError, match="is not the file"):
        copy_tree(library, tmp_path / "copy2")


def test_a_library_that_was_not_pulled_says_so(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailedError) as caught:
        copy_tree(Library("lib", tmp_path / "none", "https://git.example/lib", COMMIT), tmp_path / "copy")
    assert "labsync pull libraries/lib" in caught.value.hint


def test_variables_that_conda_keeps_for_an_environment_are_part_of_activating_it(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    (tmp_path / "conda-meta" / "state").write_text('{"env_vars": {"PRICE": "$5", "DEPTH": 3}}')
    found = activation("lab", tmp_path, Tools(tmp_path, tmp_path / "log"))
    assert found == {
        "PATH": f"{tmp_path}/bin:${{PATH}}",
        "CONDA_PREFIX": str(tmp_path),
        "CONDA_DEFAULT_ENV": "lab",
        "PRICE": "$$5",
        "DEPTH": "3",
    }
