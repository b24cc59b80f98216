"""Every deliberate failure of labsync: what happened, what is safe, what to do, and the exit code.

Foreign exceptions are translated to these at the border of the adapter that caught them.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitCode(enum.IntEnum):
    """The documented exit codes; `docs/formats.md` lists them and a test compares."""

    OK = 0
    BUG = 1
    USAGE = 2
    INVALID = 3
    PARTIAL = 4
    INTEGRITY = 5
    NOT_FOUND = 6
    NOT_ALLOWED = 7
    UNAVAILABLE = 8
    DISK = 9
    LOCKED = 10
    CONFLICT = 11
    REFUSED = 12
    ENVIRONMENT = 13
    SMOKE = 14
    DEADLINE = 15
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


# The default of what may as well end one step of many as a whole command.
_FINISHED_IS_KEPT = "what was finished before is kept, nothing else was changed"


class LabsyncError(Exception):
    """A failure that a person can act on.

    `what` is one lower-case sentence without a period; `safe` says what was not harmed; `hint` says
    what to do. `artifact` is `kind/name`, `path` the file inside it or the file at fault.
    `retryable` tells the engine whether the same call may succeed later.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.BUG
    retryable: ClassVar[bool] = False
    default_safe: ClassVar[str] = "nothing was changed"

    def __init__(
        self, what: str, *, safe: str = "", hint: str = "", artifact: str = "", path: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.safe = safe or self.default_safe
        self.hint = hint
        self.artifact = artifact
        self.path = path


class UsageError(LabsyncError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = ExitCode.USAGE


class InvalidError(LabsyncError):
    """A manifest, lock or stored record is malformed, stale, or from a newer version.

    `issues` holds one `file:line: message` per problem; all problems are reported at once.
    """

    exit_code = ExitCode.INVALID

    def __init__(
        self,
        what: str,
        *,
        issues: tuple[str, ...] = (),
        safe: str = "",
        hint: str = "",
        artifact: str = "",
        path: str = "",
    ) -> None:
        super().__init__(what, safe=safe, hint=hint, artifact=artifact, path=path)
        self.issues = issues


class IntegrityError(LabsyncError):
    """Bytes do not have the digest or the size that was promised."""

    exit_code = ExitCode.INTEGRITY
    retryable = True
    default_safe = "the wrong bytes were not published"


class ChangedError(LabsyncError):
    """A file changed while it was being read; its upload was abandoned before it became visible."""

    exit_code = ExitCode.PARTIAL
    retryable = True
    default_safe = "the mirror keeps what it had"


class NotFoundError(LabsyncError):
    """A place answered that the thing does not exist; a 403 is never read as this."""

    exit_code = ExitCode.NOT_FOUND
    default_safe = _FINISHED_IS_KEPT


class NotAllowedError(LabsyncError):
    """Credentials are missing, wrong or without the right; or a gated model was not granted."""

    exit_code = ExitCode.NOT_ALLOWED
    default_safe = _FINISHED_IS_KEPT


class UnavailableError(LabsyncError):
    """An origin or the mirror does not answer, or answers that it cannot now.

    `retry_after` is the number of seconds the server asked us to wait, 0 where it said nothing.
    """

    exit_code = ExitCode.UNAVAILABLE
    retryable = True
    default_safe = "what had arrived is kept; run the same command again to continue"

    def __init__(
        self,
        what: str,
        *,
        retry_after: float = 0.0,
        safe: str = "",
        hint: str = "",
        artifact: str = "",
        path: str = "",
    ) -> None:
        super().__init__(what, safe=safe, hint=hint, artifact=artifact, path=path)
        self.retry_after = retry_after


class DiskError(LabsyncError):
    """The disk is full, over its budget, or cannot be written."""

    exit_code = ExitCode.DISK
    default_safe = _FINISHED_IS_KEPT


class LockedError(LabsyncError):
    """Another labsync works on this artifact."""

    exit_code = ExitCode.LOCKED


class ConflictError(LabsyncError):
    """Two changes exist and labsync will not choose between them."""

    exit_code = ExitCode.CONFLICT
    default_safe = "both contents are kept"


class RefusedError(LabsyncError):
    """What was asked could harm something, so it is not done."""

    exit_code = ExitCode.REFUSED


class EnvironmentFailedError(LabsyncError):
    """The environment or its kernel could not be built or proven."""

    exit_code = ExitCode.ENVIRONMENT
    default_safe = "the previous environment and kernel, if any, are untouched"


class SmokeFailedError(LabsyncError):
    """A model did not run."""

    exit_code = ExitCode.SMOKE


class InterruptedRunError(LabsyncError):
    """The run was stopped by a signal; `signum` says which."""

    exit_code = ExitCode.INTERRUPTED
    default_safe = "finished files are kept; run the same command again to continue"


_WINS = (
    ExitCode.BUG,
    ExitCode.INTERRUPTED,
    ExitCode.TERMINATED,
    ExitCode.HANGUP,
    ExitCode.DEADLINE,
)


def combine(codes: Iterable[int]) -> int:
    """Return the exit code of a run from the codes of its failures.

    One kind of failure gives its own code, several give 4; the deadline and interruption win over all.
    """
    kinds = {int(code) for code in codes} - {int(ExitCode.OK)}
    for winner in _WINS:
        if winner in kinds:
            return int(winner)
    if len(kinds) > 1:
        return int(ExitCode.PARTIAL)
    return kinds.pop() if kinds else int(ExitCode.OK)
