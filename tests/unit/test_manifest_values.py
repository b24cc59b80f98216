"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest

from labsync.errors import UsageError
from labsync.manifest import parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("3h12m", 11520), ("1h1m1s", 3661), ("0s", 0)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "1d", "m", "1m1h", "-1s", "1.5h", "1 h", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("500MB", 500_000_000), ("15 GB", 15 * 10**9), ("1GiB", 2**30), ("1.5KiB", 1536)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "GB", "1gb", "1e3MB", "-1GB", "1,5GB", "٣MB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)
