from __future__ import annotations

from pathlib import Path

import pytest

from labsync.env.spec import parse_spec, read_spec
from labsync.errors import InvalidError, NotFoundError

GOOD = """\
name: mlgpu
channels: [conda-forge]
dependencies:
  - python=3.11
  - pip
  - pip:
      - transformers>=5.18,<6   # newest
      - "torch[extra]==2.13.0 ; python_version >= '3.10'"
      - --extra-index-url https://download.example/whl/cu121
"""


def issues_of(text: str) -> tuple[str, ...]:
    with pytest.raises(InvalidError) as caught:
        parse_spec(text, "env.yaml")
    return caught.value.issues


def test_a_spec_has_python_requirements_and_indexes() -> None:
    spec = parse_spec(GOOD, "env.yaml")
    assert spec.python == "=3.11"
    assert spec.requirements == (
        "transformers>=5.18,<6",
        "torch[extra]==2.13.0 ; python_version >= '3.10'",
    )
    assert spec.indexes == ("https://download.example/whl/cu121",)


def test_conda_packages_are_named_with_their_line_and_all_at_once() -> None:
    text = "dependencies:\n  - python=3.11\n  - cudatoolkit=11.8\n  - pip\n  - ffmpeg\n  - python-dateutil\n"
    found = issues_of(text)
    assert [line.split(": ")[0] for line in found] == ["env.yaml:3", "env.yaml:5", "env.yaml:6"]
    assert "`cudatoolkit=11.8`" in found[0]
    assert "`ffmpeg`" in found[1]
    assert "`python-dateutil`" in found[2]


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("dependancies: []\n", "did you mean `dependencies`"),
        ("dependencies: python\n", "must be a list"),
        ("dependencies:\n  - conda:\n    - x\n", "unknown key"),
        ("dependencies:\n  - pip:\n    - git+https://github.com/a/b\n", "`libraries:`"),
        ("dependencies:\n  - pip:\n    - -r other.txt\n", "plain requirement"),
        ("dependencies:\n  - pip:\n    - ./folder\n", "plain requirement"),
        ("dependencies:\n  - python=three\n", "not understood"),
        ("dependencies:\n  - python\npip-repositories: [ftp://x/y]\n", "is not a URL"),
        ("dependencies:\n  - pip:\n    - --extra-index-url https://u:pw@index.example/simple\n", "password"),
        ("- python\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("dependencies: [python]\ndependencies: [python]\n", "duplicate key"),
        ("dependencies:\n  - 3\n", "this entry"),
    ],
)
def test_bad_specs_say_what_is_wrong(text: str, fragment: str) -> None:
    assert any(fragment in line for line in issues_of(text)), issues_of(text)


def test_the_content_hash_follows_what_decides_the_lock_and_nothing_else() -> None:
    def of(text: str) -> str:
        return parse_spec(text, "env.yaml").content_hash("linux-64")

    base = "name: a\ndependencies: [python=3.11, {pip: [six, numpy>=1]}]\n"
    assert of(base) == of(
        "name: b\nchannels: [x]\ndependencies: [{pip: ['numpy >= 1', six]}, python=3.11]  # c\n"
    )
    assert of(base) != of("dependencies: [python=3.11, {pip: [six, numpy>=2]}]\n")
    assert of(base) != of("dependencies: [python=3.12, {pip: [six, numpy>=1]}]\n")
    assert of(base) != of(base + "pip-repositories: [https://index.example/simple]\n")


@pytest.mark.parametrize(
    ("constraint", "version", "allowed"),
    [
        ("", "3.11.7", True),
        ("=3.11", "3.11.7", True),
        ("=3.1", "3.11.7", False),
        (" 3.11.*", "3.11.7", True),
        ("==3.11.*", "3.12.1", False),
        ("!=3.11.*", "3.11.7", False),
        ("==3.11.7", "3.11.7", True),
        ("==3.11", "3.11.7", False),
        (">=3.10,<3.13", "3.11.7", True),
        (">=3.10,<3.13", "3.13.0", False),
        (">=3.10,<=3.11", "3.11.0", True),
        (">3.11", "3.11.0", False),
        ("=3.12", "3.12.0rc1", True),
    ],
)
def test_python_constraints(constraint: str, version: str, *, allowed: bool) -> None:
    spec = parse_spec(f"dependencies: ['python{constraint}']\n", "env.yaml")
    assert spec.allows_python(version) is allowed


def test_a_missing_spec_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        read_spec(tmp_path / "none.yaml")


def test_a_spec_that_is_not_text_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "env.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidError, match="cannot be read"):
        read_spec(tmp_path / "env.yaml")
