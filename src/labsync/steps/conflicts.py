"""Conflicts, told with the commands that resolve them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.errors import ConflictError
from labsync.names import escape

if TYPE_CHECKING:
    from labsync.names import ArtifactName
    from labsync.plan import Plan
    from labsync.snapshot import Snapshot


def _some(paths: tuple[str, ...]) -> str:
    first = ", ".join(f"`{escape(path)}`" for path in paths[:3])
    return first if len(paths) <= 3 else f"{first} and {len(paths) - 3} more"


def pull_conflict(plan: Plan, wanted: str) -> ConflictError | None:
    """Return the conflict of a pull that kept the user's files, None when there is none."""
    paths = tuple(kept.path for kept in plan.kept if kept.reason == "conflict")
    if not paths:
        return None
    name = plan.artifact
    return ConflictError(
        f"{_some(paths)} of `{name}` was changed here and differs from the {wanted}",
        safe="your files are kept as they are",
        hint=f"`labsync pull {name} --force` takes the other content and sets yours aside",
        artifact=name,
        path=paths[0],
    )


def push_conflict(name: ArtifactName, paths: tuple[str, ...], mine: Snapshot) -> ConflictError:
    """Return the conflict of a push that kept both contents."""
    return ConflictError(
        f"{_some(paths)} of `{name}` changed here and on another box",
        safe=f"both are in the mirror: theirs in the head, yours as `{name}@{mine.short_id}`",
        hint=(
            f"`labsync push {name} --force` makes yours the head; "
            f"`labsync pull {name} --force` takes theirs and sets yours aside"
        ),
        artifact=name,
        path=paths[0],
    )
