"""A lab, opened: the manifest, its lock and state, and the places of each artifact, made when asked for."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from labsync.errors import ExitCode, InvalidError, LabsyncError, UsageError
from labsync.lock import check_lock, read_lock
from labsync.report import ErrorReport
from labsync.state import State
from labsync.steps.mirror_view import MirrorView

if TYPE_CHECKING:
    from pathlib import Path

    from labsync.disk.base import Home
    from labsync.disk.tree import TreeHome
    from labsync.events import Observer
    from labsync.lock import Lock, LockedArtifact
    from labsync.manifest.model import Artifact, Manifest
    from labsync.mirrors.base import Head, Mirror
    from labsync.origins.base import Origin
    from labsync.settings import Options
    from labsync.snapshot import Snapshot

EMBEDDED = "file://"
LOCAL_ORIGINS = ("file", "git+file")


class Lab:
    """Everything a command works with; nothing is opened before it is needed."""

    def __init__(self, manifest: Manifest, options: Options, observer: Observer) -> None:
        self.manifest = manifest
        self.options = options
        self.observe = observer
        self.mirror_error: LabsyncError | None = None
        self._origins: dict[str, Origin] = {}

    @cached_property
    def state(self) -> State:
        """The stat cache, ledger, bases and journals of this manifest on this disk."""
        return State(self.manifest.state_dir / f"{self.manifest.path.stem}.sqlite")

    @cached_property
    def lock(self) -> Lock | None:
        """The lock as it was when the command began, None where there is none."""
        return read_lock(self.manifest.lock_path)

    def use_lock(self, lock: Lock | None) -> None:
        """Go on with a lock that was just written, or was read in another way."""
        self.__dict__["lock"] = lock
        self.__dict__.pop("_stale", None)

    @cached_property
    def _stale(self) -> dict[str, str]:
        """Why the lock does not fit the manifest any more, by artifact; compared once per command."""
        return {reason.name: reason.what for reason in check_lock(self.manifest, self.lock)}

    @property
    def has_mirror(self) -> bool:
        """Say whether the mirror may be asked: with `--offline` only a directory mirror may.

        Not any more after `reach_mirror` found that it cannot be.
        """
        reachable = not self.options.offline or self.manifest.mirror.url.startswith(EMBEDDED)
        return reachable and self.mirror_error is None

    @cached_property
    def mirror(self) -> Mirror:
        """The project's mirror; UsageError (2) where `--offline` forbids it."""
        if self.options.offline and not self.manifest.mirror.url.startswith(EMBEDDED):
            raise UsageError(
                f"the mirror `{self.manifest.mirror.url}` needs the network, and `--offline` forbids it",
                hint="run it without `--offline`",
            )
        from labsync.mirrors.registry import open_mirror

        known = self.state.get("conditional", self._mirror_address) is not None
        return open_mirror(self.manifest.mirror, True if known else None)

    @property
    def mirror_is_embedded(self) -> bool:
        """Say whether the mirror lies in the manifest's own folder, and dies with it."""
        return self.manifest.mirror.url.startswith(f"{EMBEDDED}{self.manifest.state_dir}/")

    def is_settled(self, head: Head) -> bool:
        """Say whether the person at this box has chosen against the loser of a conflict."""
        return self.state.get("settled", f"{self._mirror_address} {head.name}") == head.snapshot.encode()

    def settle(self, head: Head) -> None:
        """Remember that the person chose against the loser of a conflict."""
        self.state.put("settled", f"{self._mirror_address} {head.name}", head.snapshot.encode())

    def reach_mirror(self) -> tuple[ErrorReport, ...]:
        """List the mirror's heads; when that fails, go on without it and return the one error."""
        if self.has_mirror:
            try:
                self.view.list_heads()
            except LabsyncError as error:
                self.mirror_error = error
                return (ErrorReport.of(error),)
        return ()

    @property
    def _mirror_address(self) -> str:
        return f"{self.manifest.mirror.endpoint} {self.manifest.mirror.url}"

    def probe_mirror(self) -> None:
        """Ask the mirror once in the life of this disk whether its writes are conditional."""
        if self.state.get("conditional", self._mirror_address) is None and self.mirror.probe():
            self.state.put("conditional", self._mirror_address, b"yes")

    @cached_property
    def view(self) -> MirrorView:
        """The mirror's heads and indexes."""
        return MirrorView(self.mirror, self.state)

    @property
    def requests_made(self) -> bool:
        """Say whether the mirror was opened in this command."""
        return "mirror" in self.__dict__

    @property
    def fetched_dir(self) -> Path:
        """Where `lock` leaves the bytes it had to read, named by SHA-256, for `pull` to use."""
        return self.manifest.state_dir / "fetched"

    def mirrors(self, artifact: Artifact) -> bool:
        """Say whether the artifact is written to the mirror by this command."""
        return artifact.mirror and self.has_mirror and not self.options.no_mirror

    def base(self, artifact: Artifact) -> Snapshot | None:
        """Return the snapshot of a made artifact that this disk last pulled from this mirror or pushed to it.

        What passed between this disk and another mirror says nothing about this one, nor what passed
        between it and a mirror that was removed and made anew since.
        """
        seen = self.state.get("base-head", self.memory_key(artifact))
        if seen and self.has_mirror and not self.view.descends(artifact.name, seen.decode()):
            return None
        return self.state.base(self.memory_key(artifact))

    def set_base(self, artifact: Artifact, snapshot: Snapshot) -> None:
        """Keep the snapshot just pulled or pushed."""
        self.state.set_base(self.memory_key(artifact), snapshot)
        if head := self.view.newest(artifact.name):
            self.state.put("base-head", self.memory_key(artifact), head.index.encode())

    def memory_key(self, artifact: Artifact) -> str:
        """Return the key of what this disk remembers of an artifact in this mirror: base and uploads."""
        return f"{artifact.name} {self._mirror_address}"

    def may_ask_origin(self, artifact: Artifact) -> bool:
        """Say whether a sourced artifact's origin may be asked: with `--offline` only what lies here may."""
        return not self.options.offline or artifact.origin.partition(":")[0] in LOCAL_ORIGINS

    def origin(self, artifact: Artifact) -> Origin:
        """Return the origin of a sourced artifact; UsageError (2) where `--offline` forbids it."""
        if not self.may_ask_origin(artifact):
            raise UsageError(
                "the origin needs the network, and `--offline` forbids it",
                artifact=artifact.name,
                hint="run it without `--offline`",
            )
        from labsync.origins.registry import origin_for

        scheme = artifact.origin.partition(":")[0]
        if scheme not in self._origins:
            self._origins[scheme] = origin_for(artifact, self.manifest.state_dir / "git")
        return self._origins[scheme]

    def locked(self, artifact: Artifact) -> LockedArtifact:
        """Return a sourced artifact's line of the lock.

        Raises InvalidError (3) when the lock is missing or stale for it, and the error that
        `labsync lock` met when the origin could not be resolved.
        """
        if self.lock is None or artifact.name not in self.lock.artifacts:
            raise InvalidError(
                f"`{artifact.name}` is not in the lock `{self.manifest.lock_path.name}`",
                artifact=artifact.name,
                hint="`labsync lock` resolves it",
            )
        if why := self._stale.get(artifact.name):
            raise InvalidError(
                f"the lock is stale: `{artifact.name}` {why}",
                artifact=artifact.name,
                hint="`labsync lock` brings the lock up to date with the manifest",
            )
        locked = self.lock.artifacts[artifact.name]
        if locked.unresolved is not None:
            raise UnresolvedError.of(artifact, locked)
        return locked

    def home(self, artifact: Artifact) -> Home:
        """Return the artifact's place on the disk; for the Hugging Face cache this needs the lock."""
        if not artifact.path:
            from labsync.disk.hf_cache import HfCacheHome, hf_cache_dir

            return HfCacheHome(
                artifact,
                self.locked(artifact),
                self.state,
                self.manifest.state_dir,
                hf_cache_dir(self.options.env),
            )
        return self.tree(artifact)

    def tree(self, artifact: Artifact) -> TreeHome:
        """Return the folder or file that the manifest names; what is made always has one."""
        from labsync.disk.tree import TreeHome

        return TreeHome(self.manifest.root, artifact, self.state, self.manifest.state_dir)


class UnresolvedError(LabsyncError):
    """The origin could not be resolved when the lock was written; the code is the one met then."""

    def __init__(self, what: str, *, code: int, artifact: str, hint: str) -> None:
        super().__init__(what, artifact=artifact, hint=hint)
        self.exit_code = ExitCode(code)  # type: ignore[misc]  # the code met then, not the class's

    @classmethod
    def of(cls, artifact: Artifact, locked: LockedArtifact) -> UnresolvedError:
        """Return the error of an `unresolved` line."""
        assert locked.unresolved is not None
        return cls(
            f"`{artifact.name}` is unresolved in the lock: {locked.unresolved.message}",
            code=locked.unresolved.code,
            artifact=artifact.name,
            hint="; ".join(filter(None, ("`labsync lock` tries again", locked.unresolved.hint))),
        )
