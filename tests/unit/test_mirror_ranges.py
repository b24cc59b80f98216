"""Answers that do not tell their length beforehand."""

from __future__ import annotations

import pytest

from labsync.errors import IntegrityError, UnavailableError
from labsync.mirrors.ranges import Span, counted
from labsync.places import Ref
from labsync.snapshot import FileEntry

ENTRY = FileEntry("f", "0" * 64, 10)


def test_exactly_the_bytes_asked_for_pass() -> None:
    assert list(counted([b"01234", b"56789"], 10, ENTRY)) == [b"01234", b"56789"]
    assert list(counted([], 0, ENTRY)) == []


def test_what_is_too_much_is_not_given() -> None:
    blocks = counted([b"01234", b"567890"], 10, ENTRY)
    assert next(blocks) == b"01234"
    with pytest.raises(IntegrityError):
        next(blocks)


def test_what_came_is_given_before_the_rest_is_missed() -> None:
    blocks = counted([b"01234"], 10, ENTRY)
    assert next(blocks) == b"01234"
    with pytest.raises(UnavailableError):
        next(blocks)


def test_of_an_unknown_size_everything_passes() -> None:
    assert list(counted([b"x"] * 3, -1, ENTRY)) == [b"x"] * 3


@pytest.mark.parametrize(
    ("offset", "start", "stop", "asked", "size"),
    [
        (None, 0, None, None, 10),
        (None, 0, 10, None, 10),
        (None, 0, 9, (0, 8), 9),
        (None, 1, None, (1, 9), 9),
        (512, 0, None, (512, 521), 10),
        (0, 0, None, (0, 9), 10),
        (512, 2, 5, (514, 516), 3),
    ],
)
def test_a_whole_object_is_asked_for_without_a_range(
    offset: int | None, start: int, stop: int | None, asked: tuple[int, int] | None, size: int
) -> None:
    span = Span.of(Ref("key", offset=offset), ENTRY, start, stop)
    assert (span.asked, span.size) == (asked, size)


def test_of_an_unknown_size_the_whole_is_asked_for() -> None:
    span = Span.of(Ref("key"), FileEntry("f", "", -1), 0, None)
    assert (span.asked, span.size) == (None, -1)
