"""What must not be pushed: files that some process is still writing, and files that hold secrets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from labsync.filters import compile_pattern
from labsync.secrets import find_secrets

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

SECRET_NAMES = (
    ".env", ".env.*", ".aws/", ".ssh/", ".netrc", "*.pem", "id_rsa", "id_ed25519",
    ".git-credentials", ".git/", "credentials.json",
)  # fmt: skip


NEVER_PUSHED = "looks like a secret and is never pushed"
# Notebooks keep what was typed and what was printed; the others are where settings are written down.
READ_FOR_SECRETS = (".ipynb", ".py", ".sh", ".yaml", ".yml", ".toml", ".cfg", ".ini")
MOST_READ = 32 << 20  # bytes; a larger notebook holds pictures
# detect-secrets' word, which editors and other tools know: https://github.com/Yelp/detect-secrets
ALLOWED = "pragma: allowlist secret"


def is_secret(path: str) -> bool:
    """Say whether a file of this name usually holds credentials."""
    patterns = [p if "/" not in p else f"**/{p}" for p in SECRET_NAMES]
    return any(compile_pattern(pattern).fullmatch(path) for pattern in patterns)


def secret_inside(path: Path) -> str:
    """Return what secret a notebook or a script holds, in words that do not repeat it; empty for none.

    A line that ends with `pragma: allowlist secret` holds none. What cannot be read is not judged: a
    push that cannot read it either will say so.
    """
    if path.suffix not in READ_FOR_SECRETS:
        return ""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_READ).decode("utf-8", "replace")
    except OSError:
        return ""
    if not (found := find_secrets(text)):
        return ""
    if ALLOWED in text:
        found = find_secrets("\n".join(line for line in text.splitlines() if ALLOWED not in line))
    return found[0] if found else ""


def secret_files() -> tuple[Path, ...]:
    """Return where the credentials of this user lie that labsync and its libraries use."""
    home, env = Path.home(), os.environ
    hub = Path(env.get("HF_HOME", home / ".cache/huggingface"))
    return (
        Path(env.get("AWS_SHARED_CREDENTIALS_FILE", home / ".aws/credentials")).expanduser(),
        Path(env.get("HF_TOKEN_PATH", hub / "token")),
        home / ".netrc",
        home / ".git-credentials",
    )


def held_open(paths: Iterable[Path], proc: Path = Path("/proc")) -> dict[Path, int]:
    """Return which of these files a process of this user has open for writing, and its id.

    Where `/proc` cannot be read (another system, another user's process) nothing is known: the
    fingerprint of the upload still notices a file that changes.
    """
    wanted: dict[tuple[int, int], list[Path]] = {}  # one file may have several names
    for path in paths:
        if identity := _identity(path):
            wanted.setdefault(identity, []).append(path)
    found: dict[Path, int] = {}
    if wanted:
        for identity, pid in _writers(wanted, f"{proc}"):
            found.update(dict.fromkeys(wanted[identity], pid))
    return found


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _writers(wanted: Container[tuple[int, int]], proc: str) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield which of the wanted files a process has open for writing, and its id.

    Most descriptors are of other files, and to know that takes one question each.
    """
    for pid in _children(proc):
        if not pid.isdigit():
            continue
        for fd in _children(f"{proc}/{pid}/fd"):
            try:
                stat = os.stat(f"{proc}/{pid}/fd/{fd}")
                if (stat.st_dev, stat.st_ino) not in wanted:
                    continue
                with open(f"{proc}/{pid}/fdinfo/{fd}", encoding="ascii") as info:
                    flags = _flags(info.read())
            except (OSError, ValueError):
                continue
            if flags & os.O_ACCMODE != os.O_RDONLY:
                yield (stat.st_dev, stat.st_ino), int(pid)


def _children(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _flags(fdinfo: str) -> int:
    for line in fdinfo.splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8)
    raise ValueError(fdinfo)
