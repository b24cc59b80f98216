"""The path policy, folding, and the safe join."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsync.errors import ExitCode, RefusedError
from labsync.names import (
    MAX_KEY,
    MAX_SEGMENT,
    NAME,
    are_plain,
    check_paths,
    escape,
    fold,
    path_problem,
    safe_join,
)
from tests.strategies import paths


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    "path",
    ["a", "a/b.c", "-leading", " space ", "trailing.", "50%", "a\\b", "C:", "...", "é", "e\u0301", "日本/語",
     ".env", "a" * MAX_SEGMENT, "/".join(["a" * 200] * 5), "\u202e", "a\u00a0b"],
)  # fmt: skip
def test_odd_names_are_carried(path: str) -> None:
    assert path_problem(path) is None
    assert safe_join(Path("/root"), path) == Path("/root", *path.split("/"))


@pytest.mark.fault(72)
@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "is empty"),
        ("/a", "is absolute"),
        ("//a", "is absolute"),
        (".", "`..` segment"),
        ("..", "`..` segment"),
        ("a/../b", "`..` segment"),
        ("a//b", "an empty"),
        ("a/", "an empty"),
        ("a/.", "`.` or"),
        ("a\nb", "control character"),
        ("a\rb", "control character"),
        ("a\x00", "control character"),
        ("a\x7f", "control character"),
        ("a\x85", "control character"),
        ("\ud800", "not valid UTF-8"),
        ("a" * (MAX_SEGMENT + 1), "a segment longer"),
        ("é" * 128, "a segment longer"),
        ("/".join(["a" * 204] * 5) + "/b", f"longer than {MAX_KEY} bytes"),
    ],
)
def test_names_that_are_refused(path: str, why: str) -> None:
    problem = path_problem(path)
    assert problem is not None
    assert why in problem
    with pytest.raises(RefusedError) as caught:
        safe_join(Path("/root"), path)
    assert caught.value.exit_code == ExitCode.REFUSED
    assert str(caught.value).isprintable()


@pytest.mark.fault(72)
def test_every_control_character_is_refused_and_no_other() -> None:
    for number in range(0x3000):
        char = chr(number)
        is_control = unicodedata.category(char) == "Cc"
        assert (path_problem(f"a{char}b") is not None) is (is_control), hex(number)


@pytest.mark.fault(75)
@given(st.text(max_size=40))
def test_the_safe_join_never_leaves_the_root(path: str) -> None:
    root = Path("/some/root")
    try:
        joined = safe_join(root, path)
    except RefusedError:
        return
    assert joined.is_relative_to(root)
    assert joined != root
    assert ".." not in joined.parts
    assert joined.relative_to(root).as_posix() == path


@given(paths())
def test_what_the_policy_carries_may_stand_alone(path: str) -> None:
    assert path_problem(path) is None
    check_paths([path])


@given(st.text(max_size=30))
def test_folding_is_stable_and_blind_to_unicode_form_and_case(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert fold(unicodedata.normalize("NFD", text)) == fold(unicodedata.normalize("NFC", text))
    if text.isascii():
        assert fold(text.upper()) == fold(text.lower())


@pytest.mark.fault(73)
@pytest.mark.parametrize(
    ("one", "other"), [("A", "a"), ("é", "e\u0301"), ("É/x", "e\u0301/X"), ("straße", "STRASSE")]
)
def test_two_names_that_fold_into_one_are_refused(one: str, other: str) -> None:
    with pytest.raises(RefusedError, match="one name on some file systems"):
        check_paths([one, other])


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b/c", "a"], ["A", "a/b"]])
def test_a_name_that_is_file_and_folder_is_refused(names: list[str]) -> None:
    with pytest.raises(RefusedError, match="is a file and the folder of"):
        check_paths(names)


def test_names_that_merely_begin_alike_stand_beside_each_other() -> None:
    check_paths(["a", "a.txt", "ab/c", "a-b"])


ODD = ["", "/a", "a/", "a//b", ".", "..", "a/.", "./a", "a/../b", "a\nb", "\x00", "a\x7f", "\x85", "\ud800",
       "a" * 256, "é" * 128, "日" * 86, "/".join(["a" * 204] * 6)]  # fmt: skip
FINE = ["a", "..a", "a..", "a/.b", "a/...", " ", "é", "-", "A" * 63]


@pytest.mark.parametrize("odd", ODD)
def test_one_refused_name_among_many_is_no_plain_list(odd: str) -> None:
    for listed in ([odd], [odd, *FINE], [*FINE, odd], ["x", odd, "y"]):
        assert not are_plain(listed)
        with pytest.raises(RefusedError):
            check_paths(listed)


def test_a_plain_list_is_known_without_a_closer_look() -> None:
    assert are_plain([])
    assert are_plain(FINE)
    assert are_plain(["A" * 255, *(path for path in FINE if path.isascii())])


@given(st.lists(st.text(max_size=12), max_size=4))
def test_what_is_called_plain_is_carried(names: list[str]) -> None:
    if are_plain(names):
        assert [path_problem(name) for name in names] == [None] * len(names)


MANY = [f"d{n % 7}/e/f{n:05}" for n in range(5000)]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["D3/e/F00003"], "one name on some file systems"),
        (["a\u0301", "á"], "one name on some file systems"),
        (["d3/E"], "is a file and the folder of"),
        (["d3"], "is a file and the folder of"),
        (["d3/e/f00003/x/y"], "is a file and the folder of"),
        (["x\x7f"], "control character"),
    ],
)
def test_one_bad_name_among_many_is_found_wherever_it_stands(more: list[str], why: str) -> None:
    check_paths(MANY)
    for listed in ([*more, *MANY], [*MANY, *more], [*MANY[:2500], *more, *MANY[2500:]]):
        with pytest.raises(RefusedError, match=why):
            check_paths(listed)


def test_the_same_name_twice_is_one_name() -> None:
    check_paths(["A", "A", "b", "b"])


def test_a_refused_name_is_shown_escaped() -> None:
    with pytest.raises(RefusedError) as caught:
        check_paths(["ok", "bad\x1b[31m\nname"])
    assert r"bad\x1b[31m\nname" in caught.value.what
    assert escape("\ud800") == r"\ud800"
    assert escape("plain é") == "plain é"


@pytest.mark.parametrize(
    ("name", "ok"), [("a", True), ("0.a_b-c", True), ("A", False), ("-a", False), ("", False)]
)
def test_artifact_names(name: str, ok: bool) -> None:
    assert bool(NAME.fullmatch(name)) is ok
