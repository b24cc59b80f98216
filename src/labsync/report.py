"""The outcome of a command as a value: what `--json` prints and `labsync-report.json` holds.

`docs/formats.md` lists the fields; a test compares them with these classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from labsync.errors import ExitCode, InvalidError, LabsyncError, combine
from labsync.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

DiskState = Literal[
    "ok", "missing", "modified", "ahead", "behind", "conflict", "extra", "incomplete",
    "skipped", "failed",
]  # fmt: skip
MirrorState = Literal["ok", "missing", "behind", "conflict", "off"]
SmokeOutcome = Literal["pass", "degraded", "fail", "pending", "skipped"]


@dataclass(frozen=True, slots=True)
class ArtifactReport:
    """How one artifact stands, after the command; `reason` says why it is not `ok`."""

    name: str
    snapshot: str
    disk: DiskState
    mirror: MirrorState
    files: int
    bytes: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Transferred:
    """What this run moved: files, and bytes by where they came from or went; `resent` moved twice."""

    files: int = 0
    bytes: int = 0
    from_origin: int = 0
    from_mirror: int = 0
    to_mirror: int = 0
    resent: int = 0

    def __add__(self, other: Transferred) -> Transferred:
        return Transferred(
            self.files + other.files,
            self.bytes + other.bytes,
            self.from_origin + other.from_origin,
            self.from_mirror + other.from_mirror,
            self.to_mirror + other.to_mirror,
            self.resent + other.resent,
        )


NOTHING_MOVED = Transferred()


@dataclass(frozen=True, slots=True)
class MirrorRequests:
    """Requests sent to the mirror by HTTP method; a directory mirror counts the like operations."""

    LIST: int = 0
    GET: int = 0
    HEAD: int = 0
    PUT: int = 0
    POST: int = 0
    DELETE: int = 0


@dataclass(frozen=True, slots=True)
class Built:
    """An environment or a kernel: its name, its folder, how it stands (`built`, `reused`, `proven`,
    `failed` …), and why.
    """

    name: str
    prefix: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """One class that a model named, and how sure it was, from 0 to 1."""

    label: str
    share: float


@dataclass(frozen=True, slots=True)
class SmokeResult:
    """One model's smoke test; `seconds` of the run, `peak_bytes` of RAM, or of VRAM on a GPU.

    `reason` is what the model answered, or the cause why it did not; then `hint` is the cure. `rung` is
    what was given up because memory ran out (`degraded`). `estimated_bytes` is what it was expected to
    need before it was loaded, 0 where that is not known; `best` are its best classes, `notes` what one
    should know although it ran.
    """

    name: str
    task: str
    result: SmokeOutcome
    reason: str = ""
    seconds: float = 0.0
    device: str = ""
    peak_bytes: int = 0
    hint: str = ""
    rung: str = ""
    dtype: str = ""
    ram_bytes: int = 0
    estimated_bytes: int = 0
    best: tuple[Share, ...] = ()
    notes: tuple[str, ...] = ()
    device_name: str = ""
    device_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that is not carried, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """One failure, in the three parts every error has, with its exit code."""

    code: int
    artifact: str
    path: str
    message: str
    hint: str
    safe: str = ""
    issues: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: LabsyncError, artifact: str = "") -> ErrorReport:
        """Return the report of an exception, filling in the artifact it does not name itself."""
        return cls(
            int(error.exit_code),
            error.artifact or artifact,
            error.path,
            redact(error.what),
            redact(error.hint),
            error.safe,
            error.issues if isinstance(error, InvalidError) else (),
        )


@dataclass(frozen=True, slots=True)
class Report:
    """The last object of every command's JSON output."""

    exit_code: int = int(ExitCode.OK)
    artifacts: tuple[ArtifactReport, ...] = ()
    transferred: Transferred = Transferred()
    mirror_requests: MirrorRequests = MirrorRequests()
    environment: Built | None = None
    kernel: Built | None = None
    smoke: tuple[SmokeResult, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    errors: tuple[ErrorReport, ...] = field(default=())


def exit_code_of(errors: Iterable[ErrorReport]) -> int:
    """Return the run's exit code: 0, the one kind of failure, or 4 for several kinds."""
    return combine(error.code for error in errors)
