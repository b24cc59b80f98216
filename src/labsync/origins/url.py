"""Any URL: https through labsync's own reader, the bytes of `file:` directly, everything else through fsspec.

One file, or (not over http) a folder, written with a slash at its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from labsync.errors import InvalidError, NotFoundError
from labsync.origins.base import Listed, Listing
from labsync.origins.file_systems import FileSystems, file_errors, read_blocks
from labsync.origins.http import HttpReader
from labsync.origins.http_errors import bare
from labsync.origins.local_files import SCHEME as LOCAL
from labsync.origins.local_files import read_local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsspec import AbstractFileSystem

    from labsync.manifest.model import Artifact
    from labsync.origins.file_systems import Info
    from labsync.places import Blocks, Ref
    from labsync.snapshot import FileEntry

# Their `find` is one flat listing that raises; elsewhere it leaves out what it could not list.
_FLAT = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}


class UrlOrigin:
    """Files and folders by URL; safe for several threads."""

    def __init__(self) -> None:
        self._http = HttpReader()
        self._systems = FileSystems()

    def resolve(self, artifact: Artifact) -> Listing:
        """Fulfil the contract of `Resolver.resolve`; the revision is empty, the digest the manifest's."""
        url = artifact.origin
        if not url.endswith("/"):
            return Listing("", (self._one(url, artifact.sha256),), {})
        if _is_http(url):
            raise InvalidError(
                f"`{bare(url)}` is a folder, and folders cannot be listed over http",
                hint="name each file as an artifact of its own",
            )
        with file_errors(url):
            return _listing(self._folder(url), artifact)

    def read(self, ref: Ref, entry: FileEntry, start: int = 0, stop: int | None = None) -> Blocks:
        """Fulfil the contract of `Reader.read`."""
        url = ref.location
        if _is_http(url):
            return self._http.read(url, entry, start, stop, version=ref.revision)
        url = url + ref.path if url.endswith("/") else url
        if url.startswith(LOCAL):
            return read_local(url, entry, start, stop)
        return self._read_elsewhere(url, entry, start, stop)

    def _read_elsewhere(self, url: str, entry: FileEntry, start: int, stop: int | None) -> Blocks:
        fs, path = self._systems.open(url)
        yield from read_blocks(fs, path, url, entry, start, stop)

    def _one(self, url: str, sha256: str) -> Listed:
        name = _name(url)
        if _is_http(url):
            size, version = self._http.look_at(url)
            return Listed(name, size, sha256, version=version)
        fs, path = self._systems.open(url)
        with file_errors(url):
            info: Info = fs.info(path)
        if info["type"] == "directory":
            raise InvalidError(f"`{url}` is a folder", hint=f"write it with a slash at its end: `{url}/`")
        return _listed(info, name, sha256)

    def _folder(self, url: str) -> Iterator[tuple[str, Info]]:
        """Yield every relative path below a folder with what is known of it; links are not followed."""
        fs, path = self._systems.open(url)
        base = path.rstrip("/") + "/"
        if fs.protocol in _FLAT or set(fs.protocol) & _FLAT:
            found: dict[str, Info] = fs.find(path, detail=True)
            if not found and "/" in path:
                raise NotFoundError(f"`{url}` does not exist or is empty", hint="check the address")
            infos = iter(found.values())
        else:
            infos = _walk(fs, path)
        for info in infos:
            name = str(info["name"])
            if not name.startswith(base):
                raise NotFoundError(f"`{url}` is a file", hint="write it without a slash at its end")
            yield name.removeprefix(base), info


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _name(url: str) -> str:
    """Return the URL's last segment, decoded where URLs are encoded."""
    if not _is_http(url):
        return url.rpartition("/")[2]
    if name := unquote(urlsplit(url).path.rpartition("/")[2]):
        return name
    raise InvalidError(f"`{bare(url)}` does not name a file")


def _walk(fs: AbstractFileSystem, path: str) -> Iterator[Info]:
    folders = [path]
    while folders:
        for info in fs.ls(folders.pop(), detail=True):
            if info["type"] == "directory":  # what a link names is no folder here
                folders.append(str(info["name"]))
            else:
                yield info


def _listing(found: Iterator[tuple[str, Info]], artifact: Artifact) -> Listing:
    files: list[Listed] = []
    skipped: dict[str, str] = {}
    is_filtered = False
    for path, info in found:
        if not path:  # the folder's own marker
            continue
        if not artifact.filter.keeps(path):
            is_filtered = True
        elif reason := _why_skipped(path, info):
            skipped[path] = reason
        else:
            files.append(_listed(info, path))
    files.sort(key=lambda file: file.path.encode("utf-8", "surrogatepass"))
    return Listing("", tuple(files), skipped, is_filtered)


def _why_skipped(path: str, info: Info) -> str:
    if info.get("islink"):
        return "is a link"
    if path.endswith("/") or info["type"] == "directory":
        return "marks a folder"
    return "" if info["type"] == "file" else "is not a regular file"


def _listed(info: Info, path: str, sha256: str = "") -> Listed:
    size, mode = info.get("size"), info.get("mode")
    is_executable = isinstance(mode, int) and bool(mode & 0o100)
    return Listed(path, size if isinstance(size, int) else -1, sha256, is_executable)
