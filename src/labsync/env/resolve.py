"""Make the environment's lock: uv resolves the spec to wheels, their URLs and digests."""

from __future__ import annotations

import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from labsync.digest import sha256_file
from labsync.env.lock import EnvironmentLock, LockedPackage, current_platform, normal_name
from labsync.errors import EnvironmentFailedError, InvalidError
from labsync.secrets import find_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from packaging.tags import Tag

    from labsync.env.spec import EnvironmentFile
    from labsync.env.tools import Tools

_MACHINES = {"linux-64": "x86_64", "linux-aarch64": "aarch64"}
_OLDEST_GLIBC = 5  # manylinux1, https://peps.python.org/pep-0600/#legacy-manylinux-tags


@dataclass(frozen=True, slots=True)
class Target:
    """The machine that a lock is for; it need not be this one."""

    python: str
    platform: str = ""
    glibc: str = "2.28"

    @property
    def machine(self) -> str:
        """The processor, as wheels name it; InvalidError (3) for a platform without wheels for Linux."""
        name = self.platform or current_platform()
        if name not in _MACHINES:
            raise InvalidError(
                f"environments cannot be locked for the platform `{name}`",
                hint=f"known are {', '.join(_MACHINES)}",
            )
        return _MACHINES[name]


@dataclass(frozen=True, slots=True)
class PackageIndexes:
    """Where the resolver looks; `no_index` means only in `find_links`, folders or pages of files."""

    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False

    def arguments(self) -> list[str]:
        """Return uv's options."""
        return [
            *(f"--extra-index-url={url}" for url in self.extra),
            *(f"--find-links={place}" for place in self.find_links),
            *(["--no-index"] if self.no_index else []),
        ]


PYPI = PackageIndexes()


def lock_pip(
    spec: EnvironmentFile,
    target: Target,
    tools: Tools,
    indexes: PackageIndexes = PYPI,
    *,
    constraints: Sequence[str] = (),
) -> EnvironmentLock:
    """Resolve the spec's requirements to exact wheels for the target; no package is installed.

    Only wheels are taken: building runs foreign code, and its result has no digest. `constraints` must
    hold besides. Raises InvalidError (3) when the spec does not fit the target's Python,
    EnvironmentFailedError (13) with uv's own explanation when nothing fits together or the index does
    not answer.
    """
    if not spec.allows_python(target.python):
        raise InvalidError(
            f"`{spec.path}` asks for `python{spec.python}`, and the environment is built on {target.python}",
            path=spec.path,
            hint="change the spec's `python`, or run labsync with that Python",
        )
    rows = resolve_pip(spec, target, tools, indexes, constraints=constraints)
    platform = target.platform or current_platform()
    minor = ".".join(target.python.split(".")[:2])
    return EnvironmentLock(platform, spec.content_hash(platform), rows, minor, (Path(spec.path).name,))


def resolve_pip(
    spec: EnvironmentFile,
    target: Target,
    tools: Tools,
    indexes: PackageIndexes = PYPI,
    *,
    constraints: Sequence[str] = (),
    provided: AbstractSet[str] = frozenset(),
) -> tuple[LockedPackage, ...]:
    """Return the wheels for the spec's requirements of pip on the target.

    What is `provided` by others must fit `constraints` and whatever needs it, but neither it nor what it
    alone needs is among the wheels. Raises as `lock_pip`.
    """
    if not spec.requirements:
        return ()
    machine = target.machine
    minor = ".".join(target.python.split(".")[:2])
    all_indexes = PackageIndexes((*spec.indexes, *indexes.extra), indexes.find_links, indexes.no_index)
    tag = f"{machine}-manylinux_{target.glibc.replace('.', '_')}"
    options = [
        "--python-version", minor, "--python-platform", tag, "--python", sys.executable,
        *all_indexes.arguments(),
    ]  # fmt: skip
    resolved = _compile(spec, options, tools, constraints)
    if not provided.isdisjoint(normal_name(str(one.get("name"))) for one in _tables(resolved, "packages")):
        # It fits. Once more as if nothing needed it: CUDA's wheels must not come beside conda's own torch.
        resolved = _compile(spec, options, tools, constraints, tuple(sorted(provided)))
    tags = _wheel_tags(minor, machine, target.glibc)
    return tuple(_locked(package, tags, spec) for package in _tables(resolved, "packages"))


def _compile(
    spec: EnvironmentFile,
    options: Sequence[str],
    tools: Tools,
    constraints: Sequence[str],
    without: Sequence[str] = (),
) -> Mapping[str, object]:
    tools.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="labsync-lock-") as work:
        asked, bounds = Path(work) / "requirements.in", Path(work) / "constraints.txt"
        answer, never = Path(work) / "pylock.toml", Path(work) / "never.txt"
        asked.write_text("".join(f"{line}\n" for line in spec.requirements), "utf-8")
        bounds.write_text("".join(f"{line}\n" for line in constraints), "utf-8")
        never.write_text("".join(f"{name} ; python_version < '0'\n" for name in without), "utf-8")
        tools.uv(
            [
                "pip", "compile", str(asked), "--constraint", str(bounds), "--override", str(never),
                "--output-file", str(answer),
                "--only-binary", ":all:", "--no-header", "--quiet", *options,
            ],
            f"resolve the requirements of `{spec.path}`{' beside conda packages' if constraints else ''}",
        )  # fmt: skip
        return read_toml(answer.read_text("utf-8"))


def read_toml(text: str) -> Mapping[str, object]:
    """Return the table of a TOML text; raises ValueError for anything else."""
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    table: Mapping[str, object] = toml.loads(text)
    return table


def _locked(package: Mapping[str, object], tags: Mapping[Tag, int], spec: EnvironmentFile) -> LockedPackage:
    name, version = str(package.get("name", "")), str(package.get("version", ""))
    best = min(
        (choice for wheel in _tables(package, "wheels") if (choice := _choice(wheel, tags)) is not None),
        default=None,
    )
    if best is None:
        raise EnvironmentFailedError(
            f"`{name}` {version} has no wheel for the target of `{spec.path}`",
            hint="ask for a version with wheels, or put it under `libraries:` when it lies in git",
        )
    _, url, sha256, size = best
    if find_secrets(url):
        raise InvalidError(
            f"the URL of `{name}` holds a password or token, and the lock is kept in git",
            hint="use an index that needs none, or give its credentials in `~/.netrc`",
        )
    dependencies = tuple((str(one["name"]), "") for one in _tables(package, "dependencies") if "name" in one)
    return LockedPackage(name, version, url, sha256, "pip", dependencies, size=size)


def _choice(wheel: Mapping[str, object], tags: Mapping[Tag, int]) -> tuple[int, str, str, int] | None:
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    url = str(wheel.get("url") or Path(str(wheel.get("path", ""))).absolute().as_uri())
    try:
        offered = parse_wheel_filename(unquote(urlsplit(url).path.rpartition("/")[2]))[3]
    except InvalidWheelFilename:
        return None
    ranks = [tags[tag] for tag in offered if tag in tags]
    if not ranks:
        return None
    told = wheel.get("size")
    size = told if isinstance(told, int) else 0
    hashes = wheel.get("hashes")
    sha256 = str(hashes.get("sha256", "")) if isinstance(hashes, dict) else ""
    if not sha256 and url.startswith("file:"):  # a folder of wheels has no index that tells digests
        sha256, size = sha256_file(Path(unquote(urlsplit(url).path)))
    if not sha256:
        raise EnvironmentFailedError(
            f"the package index tells no SHA-256 of `{url}`", hint="use an index that does, as PyPI"
        )
    return min(ranks), url, sha256, size


def _tables(table: Mapping[str, object], key: str) -> Iterable[Mapping[str, object]]:
    found = table.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _wheel_tags(minor: str, machine: str, glibc: str) -> Mapping[Tag, int]:
    from packaging.tags import compatible_tags, cpython_tags

    legacy = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    platforms = []
    for release in range(int(glibc.split(".")[1]), _OLDEST_GLIBC - 1, -1):
        platforms.append(f"manylinux_2_{release}_{machine}")
        if release in legacy:
            platforms.append(f"{legacy[release]}_{machine}")
    platforms.append(f"linux_{machine}")
    major, _, number = minor.partition(".")
    python = (int(major), int(number))
    abi = f"cp{major}{number}"
    tags = [*cpython_tags(python, None, platforms), *compatible_tags(python, abi, platforms)]
    return {tag: rank for rank, tag in reversed(list(enumerate(tags)))}
