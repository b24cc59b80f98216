"""Whether a plan fits on the disks: decided before the first byte, with the way out where it does not."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from labsync.atomic import disk_errors
from labsync.disk.placing import nearest
from labsync.errors import DiskError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from labsync.manifest.model import DiskSpec

LEAST_RESERVE = 1 << 30
RESERVED_SHARE = 20  # one part in twenty, 5 %


class Room(NamedTuple):
    """A file system: its device number, the bytes we may still use, the bytes it has."""

    device: int
    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a plan adds to a device; `label` begins with the artifact's name."""

    label: str
    device: int
    bytes: int


def measure(path: Path) -> Room:
    """Return the room on the file system of `path`, or of its nearest parent that exists.

    Free is what an ordinary user may use (`f_bavail`): root's own share never counts.
    """
    with disk_errors(path):
        there = nearest(path)
        stat = os.statvfs(there)
        return Room(there.stat().st_dev, stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize)


def reserve_of(total: int, spec: DiskSpec) -> int:
    """Return how many bytes of a device stay free: the manifest's word, or max(1 GiB, 5 %)."""
    return max(LEAST_RESERVE, total // RESERVED_SHARE) if spec.reserve is None else spec.reserve


def check_room(
    needs: Sequence[Need], free: Mapping[int, int], total: Mapping[int, int], spec: DiskSpec, used: int
) -> None:
    """Raise DiskError (9) when the needs exceed a device's free space less the reserve, or the budget.

    `used` is what labsync holds already, which counts against the budget. The error lists what each
    artifact needs, largest first, and the commands that would make room.
    """
    for device in sorted({need.device for need in needs}):
        here = [need for need in needs if need.device == device]
        reserve = reserve_of(total[device], spec)
        room = free[device] - reserve
        if sum(need.bytes for need in here) > room:
            why = f"only {_text(free[device])} are free, of which {_text(reserve)} are the reserve"
            raise _refusal(here, max(room, 0), why)
    if spec.budget is not None and sum(need.bytes for need in needs) > spec.budget - used:
        why = f"the budget is {_text(spec.budget)}, of which {_text(used)} are used"
        raise _refusal(needs, max(spec.budget - used, 0), why)


def _refusal(needs: Sequence[Need], room: int, why: str) -> DiskError:
    ordered = sorted(needs, key=lambda need: (-need.bytes, need.label))
    width = max(len(need.label) for need in ordered)
    table = [f"  {need.label:<{width}}  {_text(need.bytes):>10}" for need in ordered]
    wanted = _text(sum(need.bytes for need in needs))
    fitting = _fitting(needs, room)
    ways = [f"`labsync pull {' '.join(fitting)}` fits"] if fitting else []
    ways += [
        "`labsync du` shows what could be removed",
        "a larger `budget` or a smaller `reserve` under `disk:` in the manifest",
    ]
    return DiskError(
        f"{wanted} do not fit: {why}",
        hint="\n".join([f"{_text(room)} of room for", *table, "; or ".join(ways)]),
    )


def _fitting(needs: Sequence[Need], room: int) -> list[str]:
    """Return the artifacts that fit together, as many as possible: the small ones first."""
    sizes: dict[str, int] = {}
    for need in needs:
        name = need.label.partition(" ")[0]
        sizes[name] = sizes.get(name, 0) + need.bytes
    chosen: list[str] = []
    for name, size in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
        if size <= room:
            chosen.append(name)
            room -= size
    return sorted(chosen)


def _text(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
