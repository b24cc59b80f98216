"""labsync itself as a wheel without dependencies, for every environment it builds.

The same installed files always give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import labsync
from labsync.digest import sha256_bytes

if TYPE_CHECKING:
    from labsync.env.tools import Tools

NAME = "labsync"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file can tell
_WHEEL = "Wheel-Version: 1.0\nGenerator: labsync\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@cache
def package_files() -> tuple[tuple[str, bytes], ...]:
    """Return the files of the running labsync, by their path in site-packages, sorted."""
    root = Path(labsync.__file__).parent
    paths = (path for path in root.rglob("*") if "__pycache__" not in path.parts and path.is_file())
    return tuple(
        sorted(
            (f"{NAME}/{path.relative_to(root).as_posix()}", path.read_bytes())
            for path in paths
            if not path.name.startswith(".")
        )
    )


@cache
def package_digest() -> str:
    """Return one digest of labsync's version and of all its files."""
    lines = [labsync.__version__, *(f"{sha256_bytes(data)} {name}" for name, data in package_files())]
    return sha256_bytes("\n".join(lines).encode())


def build_wheel(folder: Path) -> Path:
    """Write labsync's wheel into the folder and return its path."""
    info = f"{NAME}-{labsync.__version__}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {labsync.__version__}\n"
    files = [*package_files(), (f"{info}/METADATA", metadata.encode()), (f"{info}/WHEEL", _WHEEL.encode())]
    record = "".join(f"{name},{record_digest(data)},{len(data)}\n" for name, data in files)
    files.append((f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode()))
    wheel = folder / f"{NAME}-{labsync.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files:
            member = zipfile.ZipInfo(name, _EPOCH)
            member.external_attr = 0o644 << 16
            archive.writestr(member, data)
    return wheel


def record_digest(data: bytes) -> str:
    """Return a digest as RECORD has it, `sha256=` and unpadded base64 (PEP 376, PEP 427)."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def install_labsync(prefix: Path, tools: Tools) -> None:
    """Install labsync itself into the environment; EnvironmentFailedError (13)."""
    with tempfile.TemporaryDirectory(prefix="labsync-wheel-", dir=prefix) as work:
        wheel = build_wheel(Path(work))
        # From a folder of wheels and not by its path: that would be recorded as where it came from.
        # Without the cache: it would give an older build of the same version.
        tools.uv(
            [
                "pip", "install", "--no-config", "--python", str(prefix / "bin" / "python"), "--no-deps",
                "--no-index", "--no-cache", "--reinstall", "--find-links", str(wheel.parent), "labsync",
            ],
            "install labsync into the environment",
        )  # fmt: skip
