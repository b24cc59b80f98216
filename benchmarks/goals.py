"""What is measured, in the order of the report, and what labsync wants to reach there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Measure = Literal["wall", "rss", "requests", "resent"]
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Goal:
    """`subject` stays at or below `limit`: of another's time, or of an amount where `against` is empty.

    `against` is a contender's name, or `best` for the fastest peer of the same round.
    """

    subject: str
    limit: float
    against: str = ""
    measure: Measure = "wall"


@dataclass(frozen=True, slots=True)
class Row:
    """One workload; those named in `beside` are measured, but are no peers: nobody installs them."""

    name: str
    title: str
    goals: tuple[Goal, ...]
    beside: tuple[str, ...] = ()
    server: str = "rclone serve s3"


def best(subject: str, limit: float) -> Goal:
    """Return the goal against the fastest peer."""
    return Goal(subject, limit, "best")


ROWS = (
    Row(
        "pull-one",
        "pull one object of 2 GiB",
        (
            Goal("labsync", 0.85, "s5cmd, then openssl"),
            Goal("labsync", 1.3, "s5cmd"),
            Goal("labsync", 150 * MIB, measure="rss"),
        ),
    ),
    Row(
        "push-one",
        "push one file of 2 GiB",
        (best("labsync", 0.95), Goal("labsync", 150 * MIB, measure="rss")),
    ),
    Row(
        "pull-many",
        "pull 10,000 files of 2 to 60 kB",
        (best("labsync", 0.8), best("labsync, packed", 0.4)),
        beside=("obstore",),
    ),
    Row(
        "push-many",
        "push 10,000 files of 2 to 60 kB",
        (best("labsync", 0.9), best("labsync, packed", 0.6)),
        beside=("obstore",),
    ),
    Row(
        "nothing-10k",
        "nothing to do, 10,000 files",
        (
            best("labsync pull", 1.5),
            best("labsync status", 1.5),
            Goal("labsync pull", 1, measure="requests"),
            Goal("labsync status", 1, measure="requests"),
        ),
    ),
    Row(
        "nothing-100k",
        "nothing to do, 100,000 files",
        (
            best("labsync pull", 0.3),
            best("labsync status", 0.3),
            Goal("labsync pull", 1, measure="requests"),
            Goal("labsync pull", 150 * MIB, measure="rss"),
            Goal("labsync status", 150 * MIB, measure="rss"),
        ),
    ),
    Row("kill-pull", "killed while pulling 2 GiB", (Goal("labsync", 8 * MIB, measure="resent"),)),
    Row("kill-push", "killed while pushing 2 GiB", (Goal("labsync", 33 * MIB, measure="resent"),)),
    Row(
        "growth",
        "plan and status of ever more files",
        (
            Goal("labsync status, 1,000,000 files", 12),
            Goal("labsync status, 1,000,000 files", 10**9, measure="rss"),
            Goal("labsync pull --dry-run, 1,000,000 files", 12),
            Goal("labsync pull --dry-run, 1,000,000 files", 10**9, measure="rss"),
            Goal("labsync status, 1,000,000 files", 12, "labsync status, 100,000 files"),
            Goal("labsync pull --dry-run, 1,000,000 files", 12, "labsync pull --dry-run, 100,000 files"),
        ),
        server="a folder",
    ),
    Row(
        "hub",
        "download 2 GiB from a hub, HTTP",
        (best("labsync", 0.9),),
        server="the test hub",
    ),
)
BY_NAME = {row.name: row for row in ROWS}
