"""Origins as they are written: `hf://org/repo@rev`, `git+https://…@rev`, `https://…`, `file:…`, `s3://…`."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from labsync.manifest.schema import did_you_mean
from labsync.names import path_problem

if TYPE_CHECKING:
    from pathlib import Path

Sort = Literal["hf", "git", "file", "s3", "url"]
GIT = ("git+https", "git+http", "git+ssh", "git+file")
_COMMON = ("hf", *GIT, "https", "http", "file", "s3")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_REPOSITORY = re.compile(r"(?:datasets/)?[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?", re.ASCII)
# https://git-scm.com/docs/git-check-ref-format, and nothing that git could take for an option
_REVISION = re.compile(r"(?![-/])(?!.*(?:\.\.|@\{|//))[^\s~^:?*\[\\\x00-\x1f\x7f]+(?<![/.])")


@dataclass(frozen=True, slots=True)
class WrittenOrigin:
    """An origin taken apart.

    `url` is without the revision, and absolute for `file:`; `written` is `url` as the user wrote it.
    `file_name` is the URL's last segment (decoded over http) for one file, empty for a folder.
    """

    sort: Sort
    url: str
    written: str
    revision: str = ""
    file_name: str = ""

    @property
    def has_revisions(self) -> bool:
        """Say whether such an origin knows revisions."""
        return self.sort in {"hf", "git"}


def read_origin(text: str, root: Path) -> WrittenOrigin | str:
    """Return the origin that `text` names, or why it names none; relative files lie under `root`."""
    scheme, colon, rest = text.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme):
        return "is not an origin: write `hf://org/repo`, `git+https://…`, `https://…`, `s3://…` or `file:…`"
    if any(char.isspace() or not char.isprintable() for char in text) and scheme not in {"file", "git+file"}:
        return "has a space or a control character"
    if scheme == "hf":
        return _hugging_face(rest)
    if scheme in GIT:
        return _git(scheme, rest, root)
    if scheme == "file":
        return _file(rest, root)
    if not rest.startswith("//"):
        return f"has the unknown form `{scheme}:`{did_you_mean(scheme, _COMMON)}"
    return _url(scheme, text)


def revision_problem(revision: str) -> str | None:
    """Return why no branch, tag or commit can have this name, None when one can."""
    if _REVISION.fullmatch(revision) is None or revision.endswith(".lock"):
        return "is not a branch, a tag or a commit"
    return None


def _hugging_face(rest: str) -> WrittenOrigin | str:
    repository, at, revision = rest.removeprefix("//").partition("@")
    if repository.count("/") > repository.startswith("datasets/") + 1:
        return "names a file: write `hf://org/repo` and pick files with `include`"
    if not rest.startswith("//") or not _REPOSITORY.fullmatch(repository) or repository == "datasets":
        return "is not `hf://org/repo` or `hf://datasets/org/repo`"
    if at and not revision:
        return "has nothing behind `@`"
    url = f"hf://{repository}"
    return WrittenOrigin("hf", url, url, revision)


def _git(scheme: str, rest: str, root: Path) -> WrittenOrigin | str:
    authority, path = "", rest
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        path = slash + path
    path, at, revision = path.rpartition("@") if "@" in path else (path, "", "")
    if at and not revision:
        return "has nothing behind `@`"
    if scheme == "git+file":
        if authority:
            return "names a host: write `git+file:relative/path` or `git+file:///absolute/path`"
        local = _absolute(path, root)
        return WrittenOrigin("git", f"git+file://{local}", f"git+file:{path}", revision) if path else _EMPTY
    if not authority or authority.startswith("-") or "@-" in authority or not path.strip("/"):
        return f"is not `{scheme}://host/path`"
    url = f"{scheme}://{authority}{path}"
    return WrittenOrigin("git", url, url, revision)


def _file(rest: str, root: Path) -> WrittenOrigin | str:
    if rest.startswith("//") and not rest.startswith("///"):
        return "names a host: write `file:relative/path` or `file:///absolute/path`"
    path = rest.removeprefix("//")
    if not path.strip("/."):
        return _EMPTY
    if path.startswith("~"):
        return "begins with `~`, which is not expanded here: write the whole path"
    folder = path.endswith("/")
    name = "" if folder else os.path.basename(path)
    if name and (problem := path_problem(name)):
        return f"names a file that {problem}"
    url = f"file://{_absolute(path, root)}{'/' if folder else ''}"
    return WrittenOrigin("file", url, f"file:{path}", file_name=name)


def _url(scheme: str, text: str) -> WrittenOrigin | str:
    try:
        parts = urlsplit(text)
    except ValueError:
        return "is not a URL"
    sort: Sort = "s3" if scheme == "s3" else "url"
    path = text.split("://", 1)[1].partition("/")[2] if sort == "s3" else parts.path
    name = path.rpartition("/")[2]
    if scheme in {"http", "https"}:
        name = unquote(name)
    if not parts.netloc or "::" in text:
        return f"is not `{scheme}://…`"
    if name and (problem := path_problem(name) or ("has a `/` in its name" if "/" in name else None)):
        return f"names a file that {problem}"
    if scheme in {"http", "https"} and not name:
        return "names no file"
    if not name and not text.endswith("/"):
        return "names no file; a folder ends in `/`"
    return WrittenOrigin(sort, text, text, file_name=name)


_EMPTY = "has an empty path"


def _absolute(path: str, root: Path) -> str:
    return os.path.normpath(os.path.join(root, path))
