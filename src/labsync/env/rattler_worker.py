"""The process that py-rattler runs in: one task on stdin, JSON lines on stdout, ended by `os._exit`.

Of its own, because an interpreter that has used rattler sometimes dies with SIGSEGV while it ends
(https://github.com/PyO3/pyo3-async-runtimes/issues/40), and because a panic must not take labsync along.

    {"task": "install", …}  ─▶  {"links": n} and {"bytes": n} as it goes, then {"done": …} or {"failed": …}

It ends when stdin does: nobody waits for what it makes then.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rattler import GenericVirtualPackage, InstallerReporter, RepoDataRecord
    from rattler.networking import Client

_RETRIES = 3
_EVERY = 0.2  # seconds between two lines of progress
_OUT = os.dup(1)


def main() -> None:
    """Carry out the task that stdin names, and end the process."""
    os.dup2(2, 1)  # what rattler prints must not get into the answer
    task = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        _say({"done": _TASKS[task["task"]](task)})
    except BaseException as error:  # noqa: BLE001  rattler's panics are no Exceptions
        _say({"failed": f"{error}" or type(error).__name__, "kind": type(error).__name__})
    os._exit(0)


def _end_with_stdin() -> None:
    while os.read(0, 1 << 12):
        pass
    os._exit(1)


def _say(line: Mapping[str, object]) -> None:
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(_OUT, data) :]


def _install(task: Mapping[str, object]) -> int:
    """Bring the prefix to exactly the locked packages; returns how many there are."""
    from rattler import PackageCache, PackageRecord, ValidationMode, install

    prefix, cache = Path(str(task["prefix"])), Path(str(task["cache"]))
    records = _locked_records(Path(str(task["lock"])))
    PackageRecord.validate([*records])
    files = task["files"] if isinstance(task["files"], dict) else {}
    canonical = {str(files[record.url]): record.url for record in records if record.url in files}
    for record in records:
        record.url = str(files.get(record.url, record.url))
    reinstall = task.get("reinstall")
    with _locked(cache):
        _sweep(cache)
        _drop_unreadable(prefix)
        asyncio.run(
            install(
                records,
                prefix,
                package_cache=PackageCache.new_layered([cache], validation_mode=ValidationMode.full()),
                client=_client(task),
                reinstall_packages=set(reinstall) if isinstance(reinstall, list) else None,
                show_progress=False,
                reporter=cast("InstallerReporter", _Reporter()),  # what it lacks is not called
            )
        )
    _name_origins(prefix, canonical)
    return len(records)


def _name_origins(prefix: Path, canonical: Mapping[str, str]) -> None:
    """Let conda's records say where the packages are from, and not which copy of them was at hand."""
    for path in (prefix / "conda-meta").glob("*.json") if canonical else ():
        record = json.loads(path.read_bytes())
        url = canonical.get(record["url"], record["url"])
        if url != record["url"]:
            path.write_text(json.dumps({**record, "url": url}), "utf-8")


def _locked_records(lock: Path) -> list[RepoDataRecord]:
    from rattler import LockFile

    environment = LockFile.from_path(lock).default_environment()
    # Asked for one platform by another object than the file's own, rattler panics; there is only one in it.
    platforms = environment.conda_repodata_records() if environment else {}
    return [record for records in platforms.values() for record in records]


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    """Let one process at a time fill this cache: only then is what lies half done in it garbage."""
    cache.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(cache / ".labsync.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(cache: Path) -> None:
    """Remove the temporary folders of killed runs, which rattler leaves for ever."""
    for path in cache.glob(".*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _drop_unreadable(prefix: Path) -> None:
    """Forget the packages whose record a full disk has cut: with one of them nothing can be installed."""
    from rattler import PrefixRecord

    for path in (prefix / "conda-meta").glob("*.json"):
        try:
            PrefixRecord.from_path(path)
        except Exception:  # noqa: BLE001  whatever it is, the record does not tell what lies there
            path.unlink()


def _client(task: Mapping[str, object]) -> Client:
    from rattler.networking import AuthenticationMiddleware, Client, RetryMiddleware

    # Without the first, one answer of 503 ends the whole installation.
    retries = () if task.get("offline") else (RetryMiddleware(_RETRIES),)
    return Client([*retries, AuthenticationMiddleware()], user_agent="labsync")


class _Reporter:
    """Turns rattler's calls into lines; the numbers are of what happened since the line before."""

    def __init__(self) -> None:
        self._arrived: dict[int, int] = {}
        self._told = 0
        self._last = 0.0
        self._downloads = 0
        self._mutex = threading.Lock()

    def on_download_start(self, cache_entry: int) -> int:  # noqa: ARG002  rattler's signature
        with self._mutex:
            self._downloads += 1
            return self._downloads

    def on_download_progress(self, download_idx: int, progress: int, total: int | None) -> None:  # noqa: ARG002
        with self._mutex:
            self._arrived[download_idx] = progress
            if time.monotonic() - self._last > _EVERY:
                self._tell()

    def on_download_completed(self, download_idx: int) -> None:  # noqa: ARG002
        with self._mutex:
            self._tell()

    def on_link_complete(self, index: int) -> None:  # noqa: ARG002
        with self._mutex:
            _say({"links": 1})

    def _tell(self) -> None:
        arrived = sum(self._arrived.values())
        _say({"bytes": arrived - self._told})
        self._told, self._last = arrived, time.monotonic()


def _solve(task: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Choose packages for the machine that the task describes; what `locked` names stays where it can."""
    from rattler import Gateway, SourceConfig, solve

    config = SourceConfig(cache_action="force-cache-only" if task["offline"] else "cache-or-fetch")
    gateway = Gateway(cache_dir=Path(str(task["cache"])), default_config=config, client=_client(task))
    held = _locked_records(Path(str(task["locked"]))) if task["locked"] else []
    free = set(_strings(task["free"]))
    solved = asyncio.run(
        solve(
            _strings(task["channels"]),
            _strings(task["specs"]),
            gateway=gateway,
            platforms=[str(task["platform"]), "noarch"],  # type: ignore[list-item]  # a literal for rattler
            virtual_packages=[_virtual(text) for text in _strings(task["virtual"])],
            locked_packages=[record for record in held if record.name.normalized not in free],
        )
    )
    return [_row(record) for record in solved]


def _strings(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _virtual(text: str) -> GenericVirtualPackage:
    from rattler import BuildString, GenericVirtualPackage, PackageName, Version

    name, version, build = [*text.split(" "), "0"][:3]
    return GenericVirtualPackage(PackageName(name), Version(version), BuildString(build))


def _row(record: RepoDataRecord) -> Mapping[str, object]:
    return {
        "name": record.name.source,
        "version": str(record.version),
        "url": record.url,
        "sha256": record.sha256.hex() if record.sha256 else "",
        "md5": record.md5.hex() if record.md5 else "",
        "size": record.size or 0,
        "depends": record.depends,
    }


_TASKS: Mapping[str, Callable[[Mapping[str, object]], object]] = {"install": _install, "solve": _solve}

if __name__ == "__main__":
    main()
