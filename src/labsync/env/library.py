"""Install git libraries from a copy of their pinned tree, and record which commit they are."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.digest import sha256_file
from labsync.env.lock import normal_name
from labsync.env.package import NAME
from labsync.env.packages import library_folders
from labsync.env.record import dist_infos, write_provenance
from labsync.env.resolve import read_toml
from labsync.errors import EnvironmentFailedError
from labsync.names import safe_join

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from packaging.requirements import Requirement

    from labsync.env.base import EnvironmentRequest, Library
    from labsync.env.tools import Tools

_SOURCE_DATE_EPOCH = "315532800"  # 1980, the oldest time that a zip file can tell
_CREDENTIALS = re.compile(r"^(https?://)[^/@]*@")
_LEGACY = ("setuptools",)  # what PEP 517 says of a tree without a build-system table
_VERSIONS = """
import importlib.metadata as metadata, json, sys
def version(name):
    try: return metadata.version(name)
    except metadata.PackageNotFoundError: return None
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


def install_libraries(request: EnvironmentRequest, prefix: Path, tools: Tools) -> None:
    """Install each library, without its dependencies; EnvironmentFailedError (13).

    Its dist-info names origin and commit. A library may replace what is inherited, never what the
    lock installed.
    """
    packages = request.lock.packages if request.lock else ()
    owners = {normal_name(package.name): "the environment's lock" for package in packages}
    owners[NAME] = "labsync itself"
    for library in request.libraries:
        wheel = library_wheel(request, library, prefix, tools)
        name = normal_name(wheel.name.partition("-")[0])
        if owner := owners.get(name):
            raise tools.failed(
                f"library `{library.name}` installs `{name}`, which comes from {owner} as well",
                "take one of them out",
            )
        owners[name] = f"library `{library.name}`"
        _install(library, wheel, prefix, tools)
        origin = _CREDENTIALS.sub(r"\1", library.origin.removeprefix("git+"))
        write_provenance(dist_infos(prefix)[name], origin, library.commit, library.requested)


def library_wheel(request: EnvironmentRequest, library: Library, prefix: Path, tools: Tools) -> Path:
    """Return the library's wheel, which is built once for each commit, from the pinned tree alone.

    One with compiled parts is built once for each environment as well. The same tree gives the same
    bytes: nothing in a wheel may be younger than `SOURCE_DATE_EPOCH`.
    """
    places = library_folders(request, library)
    if found := _find_wheel(tools.caches, places):
        return found
    if request.packages and (found := _find_wheel(request.packages, places)):
        return _keep(found, tools.caches, found.relative_to(request.packages).as_posix())
    with tempfile.TemporaryDirectory(prefix="labsync-library-", dir=prefix) as work:
        tree, out = Path(work) / "tree", Path(work) / "dist"
        copy_tree(library, tree)
        wheel = _build(library, tree, out, prefix, tools)
        place = places[0 if wheel.name.endswith("-none-any.whl") else 1]
        return _keep(wheel, tools.caches, f"{place}/{wheel.name}")


def _find_wheel(folder: Path, places: Sequence[str]) -> Path | None:
    return next((path for place in places for path in (folder / place).glob("*.whl")), None)


def _keep(wheel: Path, caches: Path, path: str) -> Path:
    kept = caches / path
    atomic.write_bytes(kept, wheel.read_bytes())
    return kept


def copy_tree(library: Library, target: Path) -> None:
    """Copy the library's files; each that the snapshot names is checked against its digest.

    A build writes into its tree, so it never gets the user's.
    """
    if not library.tree.is_dir():
        raise EnvironmentFailedError(
            f"the tree of library `{library.name}` is not at `{library.tree}`",
            hint=f"`labsync pull libraries/{library.name}` brings it",
        )
    if library.snapshot is None:
        with atomic.disk_errors(target):
            shutil.copytree(library.tree, target, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        return
    for entry in library.snapshot:
        source, copied = safe_join(library.tree, entry.path), safe_join(target, entry.path)
        atomic.refuse_links(library.tree, entry.path)
        with atomic.disk_errors(copied):
            copied.parent.mkdir(parents=True, exist_ok=True)
            if source.is_file() and not source.is_symlink():
                shutil.copyfile(source, copied)
                copied.chmod(0o755 if entry.executable else 0o644)
        if not copied.exists() or sha256_file(copied) != (entry.sha256, entry.size):
            raise EnvironmentFailedError(
                f"`{entry.path}` of library `{library.name}` is not the file of commit {library.commit[:12]}",
                hint=f"`labsync pull libraries/{library.name} --force` brings it back and sets yours aside",
                artifact=f"libraries/{library.name}",
                path=entry.path,
            )


def _build(library: Library, tree: Path, out: Path, prefix: Path, tools: Tools) -> Path:
    arguments = _builder(library, tree, prefix, tools)
    env = {
        "SOURCE_DATE_EPOCH": _SOURCE_DATE_EPOCH,
        # The copy has no `.git`, from which setuptools_scm and hatch-vcs would read the version.
        "SETUPTOOLS_SCM_PRETEND_VERSION": f"0.0+g{library.commit[:12]}",
    }
    tools.uv(
        ["build", "--wheel", "--no-config", "--out-dir", str(out), *arguments, str(tree)],
        f"build library `{library.name}`",
        env=env,
    )
    wheels = sorted(out.glob("*.whl"))
    if len(wheels) != 1:
        raise tools.failed(f"the build of library `{library.name}` made {len(wheels)} wheels")
    return wheels[0]


def _builder(library: Library, tree: Path, prefix: Path, tools: Tools) -> list[str]:
    """Return uv's options for the first Python that has what the build needs.

    That is the environment's own (a library may need its torch to build), then the one that runs
    labsync; only when neither has it does uv fetch it into a Python of its own.
    """
    needed = _build_requirements(library, tree)
    python = prefix / "bin" / "python"
    names = [requirement.name for requirement in needed]
    answer = tools.run([str(python), "-I", "-c", _VERSIONS, *names], "ask the environment for its packages")
    if not _missing(needed, json.loads(answer.stdout)):
        return ["--python", str(python), "--no-build-isolation"]
    missing = _missing(needed, {name: _running_version(name) for name in names})
    if not missing:
        return ["--python", sys.executable, "--no-build-isolation"]
    if tools.offline:
        raise tools.failed(
            f"library `{library.name}` needs {', '.join(missing)} to be built, and the network is off",
            f"`pip install {' '.join(missing)}` beside labsync, or run once without `--offline`",
        )
    return ["--python", str(python)]


def _build_requirements(library: Library, tree: Path) -> Sequence[Requirement]:
    from packaging.requirements import InvalidRequirement, Requirement

    requires: Sequence[object] = _LEGACY
    try:
        if (path := tree / "pyproject.toml").is_file():
            table = read_toml(path.read_text("utf-8")).get("build-system")
            found = table.get("requires") if isinstance(table, dict) else None
            requires = found if isinstance(found, list) else _LEGACY
        needed = [Requirement(str(line)) for line in requires]
    except (ValueError, InvalidRequirement) as error:
        raise EnvironmentFailedError(
            f"the `pyproject.toml` of library `{library.name}` cannot be read: {error}",
            hint="it is the library's own; another revision may be whole",
        ) from error
    return [one for one in needed if one.marker is None or one.marker.evaluate()]


def _missing(needed: Sequence[Requirement], versions: Mapping[str, str | None]) -> list[str]:
    missing = []
    for requirement in needed:
        version = versions.get(requirement.name)
        if requirement.name == "wheel" and any(one.name == "setuptools" for one in needed):
            continue  # setuptools brings `bdist_wheel` itself since 70.1, and trees go on naming `wheel`
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            missing.append(str(requirement))
    return missing


def _running_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _install(library: Library, wheel: Path, prefix: Path, tools: Tools) -> None:
    tools.uv(
        [
            "pip", "install", "--no-config", "--python", str(prefix / "bin" / "python"), "--no-deps",
            "--no-index", "--no-cache", "--reinstall", str(wheel),
        ],
        f"install library `{library.name}`",
    )  # fmt: skip
