"""Which file and artifact names are carried, and the one safe join for every path from outside."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Literal, NewType

from labsync.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Kind = Literal["models", "checkpoints", "datasets", "libraries", "results", "environments"]
KINDS: tuple[Kind, ...] = ("models", "checkpoints", "datasets", "libraries", "results")
MIRRORED: tuple[Kind, ...] = (*KINDS, "environments")
"""What the mirror keeps: the kinds of the manifest, and the packages of environments."""

ArtifactName = NewType("ArtifactName", str)
"""`kind/name`, as in `models/qwen2-vl-2b`."""

MAX_SEGMENT = 255  # bytes, NAME_MAX of the file systems in use
MAX_KEY = 1024  # bytes, https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc
_DOTS = {"", ".", ".."}
_DOT_SEGMENT = re.compile(r"//|/\.\.?/")  # between slashes: an empty segment, `.` or `..`
_ASCII_CONTROL = bytes([*range(0x20), 0x7F])
_AT_ONCE = 1000  # paths that are looked at together


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
    listed = list(paths)
    if not _stand_together(listed):
        _check_each(listed)


def are_plain(paths: Sequence[str]) -> bool:
    """Say whether all of these are carried for sure; False where only `path_problem` can tell.

    For long lists: it looks at all of them at once, which is many times faster.
    """
    if not paths:
        return True
    text = f"/{'/'.join(paths)}/"
    if text.isascii():
        raw = text.encode()
        printable, longest = len(raw.translate(None, _ASCII_CONTROL)) == len(raw), MAX_SEGMENT
    else:  # control characters and lone surrogates are not printable; a character has 4 bytes at most
        printable, longest = text.isprintable(), MAX_SEGMENT // 4
    return printable and max(map(len, paths)) <= longest and _DOT_SEGMENT.search(text) is None


def _stand_together(paths: Sequence[str]) -> bool:
    """Say whether `_check_each` finds nothing, mostly without looking at each; False when in doubt."""
    folded: list[str] = []
    may_meet = False
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        if not are_plain(some):
            return False
        forms = _fold_all(some)
        may_meet = may_meet or forms is not some
        folded += forms
    if may_meet and len(set(folded)) < len(folded):
        return False
    folders = {path.rpartition("/")[0] for path in folded} - {""}
    for folder in list(folders):
        while (folder := folder.rpartition("/")[0]) and folder not in folders:
            folders.add(folder)
    return folders.isdisjoint(folded)


def _fold_all(paths: Sequence[str]) -> Sequence[str]:
    """Return every path folded, `paths` itself where nothing is; none of them may have a line feed."""
    text = "\n".join(paths)
    if not text.isascii():
        return [fold(path) for path in paths]
    lower = text.lower()
    return paths if lower == text else lower.split("\n")


def _check_each(paths: Sequence[str]) -> None:
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
