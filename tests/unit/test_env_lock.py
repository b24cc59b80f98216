from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from labsync.env.lock import (
    EnvironmentLock,
    LockedPackage,
    check_lock,
    parse_env_lock,
    read_env_lock,
)
from labsync.env.lock_text import format_env_lock, write_env_lock
from labsync.env.spec import parse_spec
from labsync.errors import InvalidError

SHA = "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254"
SIX = LockedPackage("six", "1.16.0", "https://files.example/six-1.16.0-py2.py3-none-any.whl", SHA)
LOCK = EnvironmentLock(
    "linux-64",
    "ab" * 32,
    (
        LockedPackage(
            "Demo.Torch",
            "2.1.0+cu121",
            "https://files.example/d%2Bcu121.whl",
            "1" * 64,
            "pip",
            (("six", ""),),
        ),
        SIX,
    ),
    "3.11",
    ("mlgpu.yaml",),
)

# As conda-lock 4 writes it: a platform we are not on, a development package, optional keys.
FOREIGN = f"""\
version: 1
metadata:
  content_hash:
    linux-64: {"cd" * 32}
    osx-arm64: {"ef" * 32}
  channels:
  - url: conda-forge
    used_env_vars: []
  platforms: [linux-64, osx-arm64]
  sources: [environment.yml]
package:
- name: six
  version: 1.16.0
  manager: pip
  platform: linux-64
  dependencies: {{}}
  url: https://files.example/six-1.16.0-py2.py3-none-any.whl
  hash:
    sha256: {SHA}
  category: main
  optional: false
- name: pytest
  version: 8.0.0
  manager: pip
  platform: linux-64
  dependencies: {{iniconfig: '', pluggy: '>=1'}}
  url: https://files.example/pytest-8.0.0-py3-none-any.whl
  hash:
    sha256: {SHA}
  category: dev
  optional: true
- name: python
  version: 3.11.7
  manager: conda
  platform: osx-arm64
  dependencies: {{}}
  url: https://conda.example/osx-arm64/python-3.11.7.conda
  hash:
    md5: 0123456789abcdef0123456789abcdef
    sha256: {SHA}
  build: h1_0_cpython
  categories: [main]
"""


def issues_of(text: str) -> str:
    with pytest.raises(InvalidError) as caught:
        parse_env_lock(text, "x.lock.yaml", "linux-64")
    assert caught.value.exit_code == 3
    return "\n".join(caught.value.issues)


def test_a_lock_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "envs" / "mlgpu.lock.yaml"
    write_env_lock(path, LOCK)
    assert read_env_lock(path, "linux-64") == LOCK
    first = path.read_bytes()
    write_env_lock(path, EnvironmentLock("linux-64", "ab" * 32, LOCK.packages[::-1], "3.11", ("mlgpu.yaml",)))
    assert path.read_bytes() == first


def test_conda_lock_own_file_is_read_for_one_platform_and_category_main() -> None:
    lock = parse_env_lock(FOREIGN, "x", "linux-64")
    assert lock.packages == (SIX,)
    assert lock.content_hash == "cd" * 32
    mac = parse_env_lock(FOREIGN, "x", "osx-arm64")
    assert [(one.name, one.manager) for one in mac.packages] == [("python", "conda")]


def test_the_written_file_is_plain_yaml_of_strings_that_stay_strings() -> None:
    tricky = LockedPackage("no", "1.10", "https://files.example/no-1.10-py3-none-any.whl", "1" * 64)
    loaded = YAML(typ="safe", pure=True).load(
        format_env_lock(EnvironmentLock("linux-64", "1e10", (tricky,), "3.10"))
    )
    row = loaded["package"][0]
    assert (row["name"], row["version"], row["hash"]["sha256"]) == ("no", "1.10", "1" * 64)
    assert loaded["metadata"]["custom_metadata"] == {"python": "3.10"}
    assert loaded["metadata"]["content_hash"] == {"linux-64": "1e10"}


@pytest.mark.parametrize(
    ("old", "new", "fragment"),
    [
        ("version: 1\n", "version: 2\n", "another version"),
        ("version: 1\n", "", "another version"),
        ("version: 1\n", "version: 1\nextra: 1\n", "unknown key"),
        (f"    sha256: {SHA}\n  category: main", "    md5: abc\n  category: main", "no `sha256`"),
        (f"    sha256: {SHA}\n  category: main", f"    sha256: {SHA[:-1]}\n  category: main", "no `sha256`"),
        ("six-1.16.0-py2.py3-none-any.whl", "six-1.16.0.tar.gz", "is not a wheel"),
        ("https://files.example/six", "/local/six", "is not a URL"),
        ("- name: six\n", "- name: 'six --index-url https://evil.example'\n", "not a package's name"),
        ("  version: 1.16.0\n", "  version: '1 --pre'\n", "not a package's version"),
        ("  manager: pip\n", "  manager: npm\n", "is not one of"),
        ("[linux-64, osx-arm64]", "[osx-arm64]", "is not locked"),
        ("- name: pytest\n  version: 8.0.0", "- name: Six\n  version: 8.0.0", "locked twice"),
        ("  optional: false\n", "  optional: false\n  extra: x\n", "unknown key"),
        ("package:\n", "packages:\n", "did you mean `package`"),
    ],
)
def test_a_bad_lock_is_invalid_and_says_why(old: str, new: str, fragment: str) -> None:
    assert old in FOREIGN
    text = FOREIGN.replace(old, new, 1).replace("category: dev", "category: main")
    assert fragment in issues_of(text)


def test_problems_are_reported_with_their_line_and_all_at_once() -> None:
    text = FOREIGN.replace(f"sha256: {SHA}", "sha256: x").replace("manager: pip", "manager: npm", 1)
    lines = issues_of(text).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("x.lock.yaml:14: package[0].manager")


def test_a_missing_lock_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="does not exist") as caught:
        read_env_lock(tmp_path / "none.lock.yaml")
    assert "labsync env lock" in caught.value.hint


def test_a_lock_is_stale_when_the_spec_changes() -> None:
    spec = parse_spec("dependencies: [python, {pip: [six]}]\n", "env.yaml")
    lock = EnvironmentLock("linux-64", spec.content_hash("linux-64"), ())
    assert check_lock(spec, lock) is None
    changed = parse_spec("dependencies: [python, {pip: [six>=1]}]\n", "env.yaml")
    assert "`env.yaml` was changed" in str(check_lock(changed, lock))


words = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?", fullmatch=True)


@given(
    name=words, version=words, digest=st.from_regex(r"[0-9a-f]{64}|[0-9]{64}|[0-9]{62}e[0-9]", fullmatch=True)
)
def test_any_name_version_and_digest_survive(name: str, version: str, digest: str) -> None:
    package = LockedPackage(name, version, f"https://files.example/{name}-{version}.whl", digest)
    lock = EnvironmentLock("linux-64", digest, (package,), "3.11")
    assert parse_env_lock(format_env_lock(lock), "x", "linux-64") == lock
