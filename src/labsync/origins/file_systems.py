"""The file systems of fsspec, opened without caches, and their errors in labsync's words."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, TypeAlias

from labsync.errors import (
    IntegrityError,
    InvalidError,
    LabsyncError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)
from labsync.origins.http_part import UPGRADE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fsspec import AbstractFileSystem

    from labsync.places import Blocks
    from labsync.snapshot import FileEntry

    Info: TypeAlias = Mapping[str, object]

FETCH = 8 << 20  # what an object store is asked for at once
BLOCK = 1 << 20
_S3 = {"s3", "s3a"}


class FileSystems:
    """Opens one file system for each scheme and server; safe for several threads."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, str], AbstractFileSystem] = {}
        self._lock = threading.Lock()

    def open(self, url: str) -> tuple[AbstractFileSystem, str]:
        """Return the file system of a URL and the path in it.

        Raises InvalidError for a scheme that fsspec does not know or whose package is missing.
        """
        scheme = url.partition(":")[0]
        endpoint = _s3_endpoint() if scheme in _S3 else ""
        with self._lock, file_errors(url):
            if (scheme, endpoint) not in self._opened:
                self._opened[scheme, endpoint] = _make(scheme, endpoint)
            fs = self._opened[scheme, endpoint]
        # Not `url_to_fs`: it reads `::` in a file's name as a chain of file systems.
        return fs, fs._strip_protocol(url)


def _s3_endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _make(scheme: str, endpoint: str) -> AbstractFileSystem:
    import fsspec

    try:
        if scheme not in _S3:
            return fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False)
    except ImportError as error:
        raise InvalidError(
            f"a package for `{scheme}://` is missing", hint=f"install what this says: {error}"
        ) from error
    except ValueError as error:
        raise InvalidError(f"`{scheme}://` is not a kind of origin") from error
    return _make_s3(endpoint)


def _make_s3(endpoint: str) -> AbstractFileSystem:
    import botocore.session
    from s3fs import S3FileSystem

    fs = S3FileSystem(
        anon=botocore.session.Session().get_credentials() is None,
        endpoint_url=endpoint or None,
        config_kwargs={"connect_timeout": 10, "read_timeout": 30, "retries": {"total_max_attempts": 2}},
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    fs.retries = 1  # the run's own retry budget decides
    return fs


def read_blocks(
    fs: AbstractFileSystem, path: str, url: str, entry: FileEntry, start: int, stop: int | None
) -> Blocks:
    """Fulfil the contract of `Reader.read` for a file of a file system.

    Not through an open file: that asks for the size first, and reads ahead what another connection
    reads too. At the end one byte too many is asked for: it tells a file that is longer than it should be.
    """
    at, end = start, entry.size if stop is None else stop
    if entry.size <= 0:  # no range of an empty file can be asked for
        with file_errors(url):
            end = int(fs.info(path)["size"])
        if end != entry.size == 0:
            raise other_size(url, entry)
    while at < end:
        ask = min(at + FETCH, end)
        with file_errors(url):
            fetched: bytes = fs.cat_file(path, start=at, end=ask + (ask == entry.size))
        if len(fetched) > ask - at:
            raise other_size(url, entry)
        for begin in range(0, len(fetched), BLOCK):
            yield memoryview(fetched)[begin : begin + BLOCK]
        at += len(fetched)
        if at < ask:
            raise UnavailableError(f"`{url}` ended {end - at} bytes too early", path=entry.path)


def other_size(url: str, entry: FileEntry) -> IntegrityError:
    """Return the error for a file that is longer or shorter than it should be."""
    return IntegrityError(
        f"`{url}` does not have the {entry.size} bytes that were expected", path=entry.path, hint=UPGRADE
    )


@contextlib.contextmanager
def file_errors(url: str) -> Iterator[None]:
    """Translate what a file system raises in the block."""
    try:
        yield
    except _foreign_errors() as error:
        raise file_error(url, error) from error


def _foreign_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions to translate; those of packages that were never imported cannot occur."""
    found: list[type[Exception]] = [OSError]
    if "s3fs" in sys.modules:
        import aiohttp
        from botocore.exceptions import BotoCoreError, ClientError

        found += [BotoCoreError, ClientError, aiohttp.ClientError]
    return tuple(found)


def file_error(url: str, error: Exception) -> LabsyncError:
    """Return what an exception of a file system means."""
    match error:
        case FileNotFoundError():
            return NotFoundError(f"`{url}` does not exist", hint="check the address")
        case PermissionError():
            return NotAllowedError(f"`{url}` may not be read", hint="check the credentials and their rights")
        case NotADirectoryError():
            return NotFoundError(f"`{url}` is a file", hint="write it without a slash at its end")
        case IsADirectoryError():
            return InvalidError(f"`{url}` is a folder", hint=f"write it with a slash at its end: `{url}/`")
        case _ if "Credentials" in type(error).__name__:
            return NotAllowedError(f"`{url}` wants credentials, and these do not do", hint=str(error))
        case _ if isinstance(error, (TimeoutError, ConnectionError)) or _is_of_the_network(error):
            return UnavailableError(f"`{url}` does not answer", hint="check the network")
        case _:
            return UnavailableError(
                f"`{url}` cannot be read: {type(error).__name__}", hint="check the network"
            )


def _is_of_the_network(error: Exception) -> bool:
    """Say whether a foreign error's name tells that nobody answered; botocore's have no common base."""
    return any(word in type(error).__name__ for word in ("Connect", "Timeout"))
