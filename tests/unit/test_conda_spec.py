"""Conda's own lines, and the digest that conda-lock itself computes of the same file."""

from __future__ import annotations

from pathlib import Path

import pytest
from conda_lock.content_hash import compute_content_hashes
from conda_lock.src_parser import make_lock_spec
from conda_lock.virtual_package import (
    FakeRepoData,
    default_virtual_package_repodata,
    virtual_package_repo_from_specification,
)

from labsync.env.conda_spec import parse_conda
from labsync.env.spec import parse_spec
from labsync.errors import InvalidError

LINES = (
    "numpy", "numpy=1.26", "numpy 1.26.4", "numpy>=1.24,<3", "numpy==1.26.4", "numpy=1.26.*", "numpy 1.2*",
    "numpy !=1.2", "scipy >=1 , <2", "numpy>1,<2|==3.1", "blas * openblas", "blas=*=openblas",
    "pytorch=2.5=*cuda12*", "numpy=1.26.4=py311h64a7726_0", "Numpy >= 1.2", "python_abi 3.11.* *_cp311",
    "conda-forge::ffmpeg", "numpy<=2", "numpy==1.2=py_0", "numpy >=1.2 py_0", "xz=5.*", "numpy ~=1.2",
)  # fmt: skip
PIP = (
    "six", "transformers>=5.18,<6", "torch[extra]==2.13.0 ; python_version >= '3.10'", "a~=1.2", "b==1.*",
    "Foo_Bar.baz!=2", "c===1.2", "f<2,>=1",
)  # fmt: skip


def theirs(tmp_path: Path, text: str, repodata: FakeRepoData) -> str:
    path, mapping = tmp_path / "env.yaml", tmp_path / "mapping.yaml"
    path.write_text(text)
    mapping.write_text("{}")
    spec = make_lock_spec(src_files=[path], mapping_url=mapping.as_uri(), platform_overrides=["linux-64"])
    digest: str = compute_content_hashes(spec, repodata)["linux-64"]
    return digest


def ours(text: str) -> str:
    return parse_spec(text, "env.yaml", "conda").content_hash("linux-64")


@pytest.fixture(scope="module")
def plain_machine() -> FakeRepoData:
    return default_virtual_package_repodata(cuda_version="")


@pytest.mark.parametrize("line", LINES)
def test_the_digest_is_conda_locks_for_every_way_to_ask_conda(
    line: str, tmp_path: Path, plain_machine: FakeRepoData
) -> None:
    text = f"channels: [conda-forge, nodefaults]\ndependencies:\n  - python=3.11\n  - {line}\n"
    assert ours(text) == theirs(tmp_path, text, plain_machine)


@pytest.mark.parametrize("line", PIP)
@pytest.mark.filterwarnings("ignore")
def test_the_digest_is_conda_locks_for_every_way_to_ask_pip(
    line: str, tmp_path: Path, plain_machine: FakeRepoData
) -> None:
    text = (
        "channels: [conda-forge]\npip-repositories: [https://wheels.example/whl/cu124]\n"
        f'dependencies:\n  - python=3.11\n  - pip\n  - pip:\n    - "{line}"\n'
    )
    assert ours(text) == theirs(tmp_path, text, plain_machine)


def test_the_digest_follows_the_declared_machine_as_conda_locks_does(tmp_path: Path) -> None:
    text = "channels: [conda-forge]\ntarget: {cuda: '12.4'}\ndependencies: [python=3.11, {pip: [six]}]\n"
    assert ours(text) == theirs(tmp_path, text, default_virtual_package_repodata(cuda_version="12.4"))
    other = text.replace("cuda: '12.4'", "glibc: '2.34', __cuda: '12.4'")
    machine = tmp_path / "virtual-packages.yaml"
    machine.write_text(
        "subdirs:\n  linux-64:\n    packages: {__unix: '0', __linux: '5.10', __archspec: '1 x86_64', "
        "__glibc: '2.34', __cuda: '12.4'}\n"
    )
    assert ours(other) == theirs(tmp_path, other, virtual_package_repo_from_specification(machine))


def test_an_index_written_the_way_of_pip_is_understood() -> None:
    index = "https://wheels.example/whl/cu124"
    text = f"channels: [c]\ndependencies: [python, {{pip: [torch, --extra-index-url {index}]}}]\n"
    key = f"channels: [c]\npip-repositories: [{index}]\ndependencies: [python, {{pip: [torch]}}]\n"
    assert ours(text) == ours(key)


@pytest.mark.parametrize(
    ("line", "strict"),
    [
        ("numpy", "numpy"),
        ("numpy 1.26.4", "numpy[version='==1.26.4']"),
        ("numpy=1.26", "numpy[version='1.26.*']"),
        ("numpy >=1.24, <3", "numpy[version='>=1.24,<3']"),
        ("pytorch=2.5=*cuda12*", "pytorch[version='==2.5',build='*cuda12*']"),
        ("conda-forge::ffmpeg=7", "ffmpeg[version='7.*',channel='conda-forge']"),
    ],
)
def test_requirements_are_told_to_the_solver_without_anything_to_guess(line: str, strict: str) -> None:
    package = parse_conda(line)
    assert package is not None
    assert package.match_spec == strict


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("dependencies: [python]\n", "names no channel"),
        ("channels: [c]\ndependencies: [numpy]\n", "asks for no `python`"),
        ("channels: [c]\ndependencies: [python, 'numpy[version=1]']\n", "is not understood"),
        ("channels: [c]\ndependencies: [python, 3]\n", "is not understood"),
        ("channels: [c]\ntarget: {cuda: new}\ndependencies: [python]\n", "`new` is not a version"),
        ("channels: [c]\ntarget: {CUDA: '1'}\ndependencies: [python]\n", "is not a virtual package"),
        ("channels: [c]\ntargets: {}\ndependencies: [python]\n", "did you mean `target`"),
    ],
)
def test_bad_conda_specs_say_what_is_wrong(text: str, fragment: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_spec(text, "env.yaml", "conda")
    assert any(fragment in line for line in caught.value.issues), caught.value.issues
