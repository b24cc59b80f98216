"""Which file and artifact names are carried, and the one safe join for every path from outside."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Literal, NewType

from labsync.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Kind = Literal["models", "checkpoints", "datasets", "libraries", "results"]
KINDS: tuple[Kind, ...] = ("models", "checkpoints", "datasets", "libraries", "results")

ArtifactName = NewType("ArtifactName", str)
"""`kind/name`, as in `models/qwen2-vl-2b`."""

MAX_SEGMENT = 255  # bytes, NAME_MAX of the file systems in use
MAX_KEY = 1024  # bytes, https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc
_DOTS = {"", ".", ".."}


def escape(path: str) -> str:
    """Return `path` safe to print: control characters and lone surrogates as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in path)


def path_problem(path: str) -> str | None:
    """Return why labsync refuses this relative POSIX path, None when it is carried.

    Control characters, invalid UTF-8, empty, `.` and `..` segments, absolute paths, segments over
    255 bytes and paths over 1,024 bytes are refused; everything else is carried as it is.
    """
    try:
        raw = path.encode("utf-8")
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if not path:
        return "is empty"
    if _CONTROL.search(path):
        return "has a control character"
    if len(raw) > MAX_KEY:
        return f"is longer than {MAX_KEY} bytes"
    segments = path.split("/")
    if path.startswith("/"):
        return "is absolute"
    if not _DOTS.isdisjoint(segments):
        return "has an empty, `.` or `..` segment"
    if len(raw) > MAX_SEGMENT and any(len(segment) > MAX_SEGMENT for segment in raw.split(b"/")):
        return f"has a segment longer than {MAX_SEGMENT} bytes"
    return None


def fold(path: str) -> str:
    """Return the form under which some file system would take two names for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def check_paths(paths: Iterable[str]) -> None:
    """Raise RefusedError (12) for a refused name, for two names that fold into one, and for a name
    that is at once a file and a folder.
    """
    seen: dict[str, str] = {}
    for path in paths:
        if problem := path_problem(path):
            raise RefusedError(f"the file name `{escape(path)}` {problem}", hint="rename it at its origin")
        if (other := seen.setdefault(fold(path), path)) != path:
            raise RefusedError(
                f"`{escape(other)}` and `{escape(path)}` are one name on some file systems",
                hint="rename or exclude one of them",
            )
    for folded, path in seen.items():
        parent = folded
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in seen:
                raise RefusedError(
                    f"`{escape(seen[parent])}` is a file and the folder of `{escape(path)}`",
                    hint="exclude one of them",
                )


def safe_join(root: Path, relative: str) -> Path:
    """Return `root / relative`, or raise RefusedError when it could leave `root`.

    The check is lexical and complete for names that pass `path_problem`; links on the disk are the
    business of `labsync.atomic.refuse_links`.
    """
    if problem := path_problem(relative):
        raise RefusedError(f"the path `{escape(relative)}` {problem}", path=escape(relative))
    return root.joinpath(*relative.split("/"))
