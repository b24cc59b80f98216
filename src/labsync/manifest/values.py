"""Durations and sizes as people write them."""

from __future__ import annotations

import re
from decimal import Decimal

from labsync.errors import UsageError

_DURATION = re.compile(r"(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?:([0-9]{1,6})s)?")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)")
_UNITS = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def parse_duration(text: str) -> float:
    """Return the seconds of `90s`, `10m` or `3h12m`; raises UsageError (2) for anything else."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise UsageError(f"`{text}` is not a duration", hint="write it like `90s`, `10m` or `3h12m`")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def parse_size(text: str) -> int:
    """Return the bytes of `1GiB` (2^30) or `15GB` (10^9); raises UsageError (2) for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None or match[2] not in _UNITS:
        raise UsageError(f"`{text}` is not a size", hint="write it like `500MB`, `15GB` or `1GiB`")
    return int(Decimal(match[1]) * _UNITS[match[2]])
