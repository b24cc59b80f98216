"""The distributions installed in a prefix: which there are, whether they are whole, where they came from."""

from __future__ import annotations

import base64
import csv
import io
import json
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.digest import sha256_file
from labsync.env.lock import normal_name
from labsync.env.package import record_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_DIRECT_URL = "direct_url.json"  # https://packaging.python.org/en/latest/specifications/direct-url/


def site_packages(prefix: Path) -> Path:
    """Return the prefix's own site-packages."""
    # conda's Python has `lib/python3.1` as a link to the real folder
    real = (path for path in sorted(prefix.glob("lib/python*")) if not path.is_symlink())
    return next((path / "site-packages" for path in real), prefix / "lib" / "site-packages")


def dist_infos(prefix: Path) -> Mapping[str, Path]:
    """Return the `.dist-info` folder of each distribution installed in the prefix, by normal name."""
    folders = site_packages(prefix).glob("*.dist-info")
    return {
        normal_name(folder.name.removesuffix(".dist-info").rpartition("-")[0]): folder for folder in folders
    }


def damaged_files(dist_info: Path) -> Iterator[Path]:
    """Yield the files of a distribution that are missing or do not have the digest in its RECORD."""
    for name, digest, _ in _rows(dist_info):
        path = dist_info.parent / name
        if digest.startswith("sha256=") and not _has_digest(path, digest.removeprefix("sha256=")):
            yield path


def write_provenance(dist_info: Path, origin: str, commit: str, requested: str) -> None:
    """Record that a distribution was installed from a commit, as pip does for a git requirement."""
    vcs = {"vcs": "git", "commit_id": commit} | ({"requested_revision": requested} if requested else {})
    direct_url = {"url": origin, "vcs_info": vcs}
    data = json.dumps(direct_url, sort_keys=True).encode()
    atomic.write_bytes(dist_info / _DIRECT_URL, data)
    name = f"{dist_info.name}/{_DIRECT_URL}"
    rows = [row for row in _rows(dist_info) if row[0] != name]
    rows.append((name, record_digest(data), str(len(data))))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    atomic.write_bytes(dist_info / "RECORD", text.getvalue().encode())


def _rows(dist_info: Path) -> list[tuple[str, str, str]]:
    with (dist_info / "RECORD").open(encoding="utf-8", newline="") as file:
        return [(row[0], row[1], row[2]) for row in csv.reader(file) if len(row) == 3]


def _has_digest(path: Path, expected: str) -> bool:
    try:
        digest, _ = sha256_file(path)
    except FileNotFoundError:
        return False
    return base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode() == expected
