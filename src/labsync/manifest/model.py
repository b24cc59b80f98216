"""The manifest as frozen values: what a lab asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from labsync.filters import Filter
from labsync.names import ArtifactName, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HISTORY = ".history"
"""How the name ends under which the mirror keeps the history of a library."""
Layout = Literal["plain", "packed"]
Manager = Literal["conda", "venv"]
Task = Literal[
    "segment-anything",
    "image-text-to-text",
    "image-feature-extraction",
    "video-classification",
    "feature-extraction",
    "python",
]


@dataclass(frozen=True, slots=True)
class SmokeInputs:
    """The user's own inputs; paths are relative to the manifest."""

    image: str = ""
    points: tuple[tuple[float, float], ...] = ()
    video: str = ""
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class SmokeSpec:
    """How one model is proven; zero and empty mean the task's own default. `timeout` is in seconds."""

    task: Task
    dtype: str = ""
    device: str = ""
    timeout: float = 0.0
    max_new_tokens: int = 0
    max_pixels: int = 0
    inputs: SmokeInputs = SmokeInputs()
    fallback: tuple[str, ...] = ()
    function: str = ""
    trust_remote_code: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One artifact as the manifest asks for it.

    `origin` is the URL without the revision, empty for a made artifact; `revision` is what the user
    wrote (a branch, a tag, a commit) or empty. `path` is relative to the manifest; empty means the
    Hugging Face cache. `is_file` says that `path` names one file and not a folder. A `file:` origin
    is absolute in `origin`; `written` keeps the relative form, which is equal on every machine and
    therefore the one that the lock knows.
    """

    kind: Kind
    short_name: str
    origin: str = ""
    revision: str = ""
    sha256: str = ""
    path: str = ""
    is_file: bool = False
    filter: Filter = field(default_factory=Filter)
    layout: Layout = "plain"
    mirror: bool = True
    keep: int = 0
    complete: str = ""
    install: bool = False
    history: bool = False
    smoke: SmokeSpec | None = None
    written: str = ""

    @property
    def name(self) -> ArtifactName:
        """`kind/name`."""
        return ArtifactName(f"{self.kind}/{self.short_name}")

    @property
    def is_packed(self) -> bool:
        """Say whether the mirror keeps its small files in tar shards; of a library it always does."""
        return self.layout == "packed" or self.kind == "libraries"

    @property
    def is_made(self) -> bool:
        """Say whether the artifact is made here instead of coming from an origin."""
        return not self.origin


@dataclass(frozen=True, slots=True)
class MirrorSpec:
    """Where the mirror is; `url` is `s3://bucket/prefix` or `file:///absolute/path`."""

    url: str
    endpoint: str = ""
    region: str = ""
    profile: str = ""
    single_writer: bool = False


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """Bytes never to be used, and bytes labsync may use at most; None means the default."""

    reserve: int | None = None
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """The environment the lab runs in; `spec` and `lock` are relative to the manifest."""

    name: str
    manager: Manager = "conda"
    inherit: bool = False
    spec: str = ""
    lock: str = ""
    kernel: str = ""
    offline: bool = False
    target: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """A profile's name, `auto` or `none`; or the user's own limit and margin in seconds."""

    profile: str = "auto"
    limit: float = 0.0
    margin: float = 0.0


@dataclass(frozen=True)
class Manifest:
    """A whole manifest; `path` is the absolute path of the file it was read from."""

    path: Path
    project: str
    mirror: MirrorSpec
    artifacts: tuple[Artifact, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    disk: DiskSpec = DiskSpec()
    session: SessionSpec = SessionSpec()
    environment: EnvironmentSpec | None = None
    device: str = ""

    @property
    def root(self) -> Path:
        """The folder that relative paths are relative to."""
        return self.path.parent

    @property
    def lock_path(self) -> Path:
        """`X.lock` beside `X.yaml`."""
        return self.path.with_suffix(".lock")

    @property
    def state_dir(self) -> Path:
        """`.labsync/` beside the manifest: state, stage, embedded mirror, what was set aside."""
        return self.root / ".labsync"

    @property
    def by_name(self) -> Mapping[str, Artifact]:
        """The artifacts by `kind/name`."""
        return {artifact.name: artifact for artifact in self.artifacts}
