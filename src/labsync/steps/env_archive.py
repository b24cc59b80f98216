"""The environment's packages in the mirror: an artifact of its own, `environments/<name>`.

The files are named as `env.packages` says, so that two versions of an environment share what they have in
common. What is mirrored is what the lock names, and the wheels that were built of git libraries.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from labsync import atomic
from labsync.artifact_locks import hold
from labsync.errors import ExitCode, LabsyncError, NotFoundError, UsageError
from labsync.manifest.model import Artifact
from labsync.places import Ref
from labsync.plan import NO_FILES, Goal, make_plan
from labsync.report import NOTHING_MOVED, ErrorReport, Transferred
from labsync.snapshot import FileEntry, Snapshot
from labsync.steps.carry import carry_out, prepare
from labsync.steps.publish import publish_sourced
from labsync.steps.pull import Pulled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from labsync.env.base import EnvironmentRequest
    from labsync.env.lock import LockedPackage
    from labsync.mirrors.base import Located
    from labsync.places import Inventory
    from labsync.plan import Plan
    from labsync.steps.lab import Lab


class EnvironmentArchive:
    """What the mirror has of one environment; counts what it moves."""

    def __init__(self, lab: Lab, request: EnvironmentRequest) -> None:
        packages = request.lock.packages if request.lock else ()
        far = next((one.url for one in packages if not one.url.startswith("file:")), "file:///")
        # As an artifact, so that plan, engine and records do with it what they do with any other.
        self._artifact = Artifact(
            "environments",
            request.name,
            origin=far,
            path=f"{lab.manifest.state_dir.name}/packages/{request.name}",
        )
        self._lab = lab
        self._request = request
        self._packages = packages
        self.transferred: Transferred = NOTHING_MOVED

    @property
    def is_mirrored(self) -> bool:
        """Say whether the mirror has anything of this environment; one listing of the heads tells it."""
        return self._lab.has_mirror and bool(self._lab.view.names(self._artifact.name))

    def holds(self, packages: Iterable[LockedPackage]) -> tuple[LockedPackage, ...]:
        """Return those of the packages that the mirror has."""
        mirrored = self._mirrored() if self.is_mirrored else {}
        return tuple(package for package in packages if package.sha256 in mirrored)

    def plan(self) -> Plan:
        """Return what `store` would bring to the mirror, the libraries' wheels left out."""
        return make_plan(self._goal(NO_FILES, ()))

    def store(self, wheels: Mapping[str, Path]) -> None:
        """Bring every locked file to the mirror, from where it was locked, past the disk.

        `wheels` are files on this disk that are stored besides, by their paths. Raises the first failure.
        """
        with self._emptied():
            home = self._lab.home(self._artifact)
            for path, file in wheels.items():
                atomic.write_bytes(home.path / path, file.read_bytes())
            goal = self._goal(home.inventory(rehash=True), wheels)
            task = prepare(self._lab, self._artifact, goal, home)
            carried = carry_out(self._lab, [task], self._artifact.name)
            self.transferred += carried.transferred
            _raise_first(carried.errors)
            if (located := carried.located(task)) is not None:
                with hold(self._lab.manifest.state_dir, self._artifact.name, "mirror"):
                    publish_sourced(self._lab, self._artifact, located)

    def _goal(self, there: Inventory, wheels: Iterable[str]) -> Goal:
        entries = {self._path(one): self._entry(one) for one in self._packages}
        return Goal(
            self._artifact.name,
            Snapshot.of((*entries.values(), *(there.files[path].entry for path in wheels))),
            disk=there,
            mirrored={sha256: file.ref for sha256, file in self._mirrored().items()},
            origin=self._origins(),
            to_disk=False,
        )

    @contextlib.contextmanager
    def fetched(self, packages: Sequence[LockedPackage]) -> Iterator[Path]:
        """Give a folder with the packages and the libraries' wheels, from the mirror first, for the block.

        A file that the mirror lacks comes from where it was locked. Raises the first failure.
        """
        mirrored = self._mirrored()
        entries = {one.sha256: self._entry(one, mirrored.get(one.sha256)) for one in packages}
        wheels = {file.entry.path: file.entry for file in self._library_wheels(mirrored.values())}
        wanted = Snapshot.of((*entries.values(), *wheels.values()))
        with self._emptied():
            home = self._lab.home(self._artifact)
            goal = Goal(
                self._artifact.name,
                wanted,
                disk=home.inventory(rehash=False),
                mirrored={sha256: file.ref for sha256, file in mirrored.items()},
                origin=self._origins() if self._lab.may_ask_origin(self._artifact) else {},
                to_mirror=False,
            )
            carried = carry_out(self._lab, [prepare(self._lab, self._artifact, goal, home)], "packages")
            self.transferred += carried.transferred
            _raise_first(carried.errors)
            home.finish(wanted)
            yield home.path

    def _mirrored(self) -> Mapping[str, Located]:
        """Return every file that any version of the archive has, by digest."""
        view = self._lab.view
        found: dict[str, Located] = {}
        for name in view.names(self._artifact.name):
            head = view.head(name)
            index = view.readable(head) if head else None
            for file in index.files if index else ():
                if file.key not in view.damaged:
                    found.setdefault(file.entry.sha256, file)
        return found

    def _library_wheels(self, files: Iterable[Located]) -> Iterator[Located]:
        from labsync.env.packages import library_folders

        folders = {place for one in self._request.libraries for place in library_folders(self._request, one)}
        for file in files:
            if file.entry.path.rpartition("/")[0] in folders:
                yield file

    def _origins(self) -> dict[str, Ref]:
        return {self._path(one): Ref(one.url, path=self._path(one)) for one in self._packages}

    def _path(self, package: LockedPackage) -> str:
        from labsync.env.packages import package_path

        return package_path(package)

    def _entry(self, package: LockedPackage, mirrored: Located | None = None) -> FileEntry:
        """Return the file as the snapshot has it; a lock of conda-lock's own tells no sizes."""
        size = package.size or (mirrored.entry.size if mirrored else 0)
        if not size:
            from labsync.origins.url import UrlOrigin

            size = UrlOrigin().resolve(Artifact("environments", "size", origin=package.url)).files[0].size
        return FileEntry(self._path(package), package.sha256, size)

    @contextlib.contextmanager
    def _emptied(self) -> Iterator[None]:
        """Leave nothing on the disk after the block: what is needed of it is unpacked by then.

        What a killed run has left is continued from.
        """
        yield
        folder = self._lab.home(self._artifact).path
        with atomic.disk_errors(folder), contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _raise_first(errors: Sequence[ErrorReport]) -> None:
    if errors:
        first = errors[0]
        raise ArchiveError(first, len(errors))


class ArchiveError(LabsyncError):
    """A file of the archive could not be brought; the code is that of the first failure."""

    def __init__(self, first: ErrorReport, count: int) -> None:
        more = f" (and {count - 1} more)" if count > 1 else ""
        super().__init__(f"{first.message}{more}", safe=first.safe, hint=first.hint, path=first.path)
        self.exit_code = ExitCode(first.code)  # type: ignore[misc]  # the code met, not the class's


def archived(lab: Lab) -> Pulled:
    """Bring the environment's packages to the mirror, each once; what it has already is not sent."""
    from labsync.env.build import build_lock_of, tools_for
    from labsync.env.library import library_wheel
    from labsync.env.packages import library_folders
    from labsync.steps.environment import built_environment, environment_request

    _require_mirror(lab)
    request = environment_request(lab)
    if request.lock is None or not request.lock.packages:
        raise UsageError("the environment has no locked packages", hint="there is nothing to archive")
    archive = EnvironmentArchive(lab, request)
    if lab.options.dry_run:
        return Pulled((archive.plan(),))
    wheels: dict[str, Path] = {}
    if request.libraries:
        prefix = Path(built_environment(lab).prefix)
        with build_lock_of(request, lab.observe) as held:
            tools = tools_for(request, prefix, lab.observe, held)
            for library in request.libraries:
                wheel = library_wheel(request, library, prefix, tools)
                pure, own = library_folders(request, library)
                folder = pure if wheel.name.endswith("-none-any.whl") else own
                wheels[f"{folder}/{wheel.name}"] = wheel
    archive.store(wheels)
    return Pulled(transferred=archive.transferred)


def _require_mirror(lab: Lab) -> None:
    _ = lab.mirror  # raises under `--offline`
    if errors := lab.reach_mirror():
        _raise_first(errors)


def require_archive(lab: Lab, archive: EnvironmentArchive) -> None:
    """Raise NotFoundError (6) when the mirror has nothing of the environment."""
    _require_mirror(lab)
    if not archive.is_mirrored:
        raise NotFoundError(
            "the mirror has no archive of this environment",
            hint="`labsync env archive` makes it on a box that can reach the channels",
        )
