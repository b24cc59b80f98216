from __future__ import annotations

import pytest

from labsync.env.edit import with_package, without_package
from labsync.env.spec import parse_spec
from labsync.errors import InvalidError, NotFoundError, UsageError

SPEC = """\
# what the lab runs on
name: lab
channels: [conda-forge]
dependencies:
  - python=3.11      # not newer: wheels
  - numpy>=1.26
  # the rest is pip's
  - pip
  - pip:
      - six>=1.16    # small
      - --extra-index-url https://download.example/whl/cu124
"""


def test_a_package_is_added_behind_the_others_and_nothing_else_changes() -> None:
    text = with_package(SPEC, "ffmpeg", pip=False)
    assert text == SPEC.replace("  - pip\n", "  - pip\n  - ffmpeg\n")
    text = with_package(SPEC, "timm>=1,<2", pip=True)
    assert text == SPEC.replace("# small\n", '# small\n      - "timm>=1,<2"\n')


def test_a_package_that_is_there_is_asked_for_anew_in_its_place() -> None:
    assert with_package(SPEC, "numpy=2", pip=False) == SPEC.replace("numpy>=1.26", "numpy=2")
    assert "- six==1.17\n" in with_package(SPEC, "Six==1.17", pip=True).lower()


def test_a_list_for_pip_is_made_where_there_is_none() -> None:
    bare = "channels: [c]\ndependencies:\n  - python=3.11"
    text = with_package(bare, "six", pip=True)
    assert text == f"{bare}\n  - pip\n  - pip:\n      - six\n"
    assert parse_spec(text, "env.yaml", "conda").requirements == ("six",)


def test_a_package_is_removed_and_an_empty_list_with_it() -> None:
    assert without_package(SPEC, "NumPy") == SPEC.replace("  - numpy>=1.26\n", "")
    text = without_package(with_package("dependencies:\n- python\n", "six", pip=True), "six")
    assert text == "dependencies:\n- python\n- pip\n"
    with pytest.raises(NotFoundError, match="did you mean `numpy`"):
        without_package(SPEC, "numpyy")


@pytest.mark.parametrize("text", ["not a package!", "", ">=1"])
def test_what_is_no_package_is_refused(text: str) -> None:
    for pip in (True, False):
        with pytest.raises(UsageError):
            with_package(SPEC, text, pip=pip)


@pytest.mark.parametrize(
    "text", ["dependencies: [python, numpy]\n", "dependencies:\n", "name: x\n", "a: [\n"]
)
def test_a_spec_that_cannot_be_edited_line_by_line_stays_as_it_is(text: str) -> None:
    with pytest.raises(InvalidError):
        with_package(text, "six", pip=False)
