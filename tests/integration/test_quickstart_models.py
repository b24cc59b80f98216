"""What the quickstart comes from: the same bytes on every machine, and really usable."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from labsync.digest import sha256_bytes, sha256_file
from labsync.manifest.parse import load_manifest
from tests.fakes.quickstart import BUILDER, ROOT, build

COMMIT = "6aa566aeaa80b80896df19566651efabba29a118"
DIGEST = "adc7418a726d5a4423c384117385b844c834a744d707f1193fa5efee4f39fb5e"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quickstart") / "origin"
    build(target, OMP_NUM_THREADS="1")
    return target


def _listing(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)[0]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_two_builds_with_different_thread_counts_are_identical(origin: Path, tmp_path: Path) -> None:
    build(tmp_path / "again", OMP_NUM_THREADS="4", PYTHONHASHSEED="7")
    assert _listing(tmp_path / "again") == _listing(origin)


def test_the_bytes_are_those_of_every_other_machine(origin: Path) -> None:
    # The checkpoint is left out: torch writes its own version into it.
    rows = [f"{name} {digest}\n" for name, digest in _listing(origin).items() if not name.endswith(".pth")]
    assert sha256_bytes("".join(rows).encode()) == DIGEST


def test_building_again_writes_nothing_and_repairs_what_was_changed(origin: Path) -> None:
    before = _listing(origin)
    assert " 0 written" in build(origin)
    (origin / "models" / "dinov3-tiny" / "config.json").write_text("{}")
    assert " 1 written" in build(origin)
    assert _listing(origin) == before


def test_everything_is_a_few_megabytes(origin: Path) -> None:
    assert 2e6 < sum(path.stat().st_size for path in origin.rglob("*") if path.is_file()) < 5e6


def test_the_pictures_are_pictures(origin: Path) -> None:
    pictures = sorted(origin.glob("datasets/**/*.png"))
    assert len(pictures) == 23
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
            assert picture.mode == "RGB"
            assert len(picture.getcolors(1 << 20) or []) > 2


def _git(*args: str) -> str:
    return subprocess.run(["git", *args], check=True, capture_output=True, text=True).stdout


def test_the_library_is_a_sound_repository_with_a_fixed_commit(origin: Path) -> None:
    bare = str(origin / "segment-anything.git")
    _git("-C", bare, "fsck", "--full", "--strict")
    assert _git("ls-remote", bare, "refs/heads/main").split()[0] == COMMIT


def test_the_library_builds_offline_and_holds_the_installed_package(origin: Path, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    _git("clone", "-q", str(origin / "segment-anything.git"), str(checkout))
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(tmp_path), str(checkout)], check=True, capture_output=True)
    found = find_spec("segment_anything")  # not imported: that needs torchvision
    assert found is not None
    package = Path(str(found.origin)).parent
    wanted = {
        f"segment_anything/{path.relative_to(package)}": path.read_bytes() for path in package.rglob("*.py")
    }
    with zipfile.ZipFile(next(tmp_path.glob("segment_anything-1.0-*.whl"))) as wheel:
        built = {name: wheel.read(name) for name in wheel.namelist() if name.endswith(".py")}
    assert built == wanted


def test_the_manifest_names_what_the_script_builds(origin: Path) -> None:
    manifest = load_manifest(ROOT / "manifests" / "quickstart.yaml")
    sourced = [artifact for artifact in manifest.artifacts if not artifact.is_made]
    assert len(sourced) == 11
    for artifact in sourced:
        place = Path(artifact.origin.partition(":")[2].removeprefix("//"))
        assert (origin / place.relative_to(BUILDER.parent / "origin")).exists(), artifact.origin
    for artifact in sourced:
        inputs = artifact.smoke.inputs if artifact.smoke else None
        for path in (inputs.image, inputs.video) if inputs else ():
            inside = path.removeprefix("quickstart/lab/")
            assert not path or (origin / inside).exists(), path
    assert sum(artifact.smoke is not None for artifact in sourced) == 8
    assert manifest.device == "cpu"
