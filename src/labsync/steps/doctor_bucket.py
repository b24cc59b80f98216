"""What doctor looks at when the mirror is a bucket: who signs, its region, the clock, each right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labsync.mirrors.s3_config import Files, Settings
from labsync.mirrors.s3_credentials import signer_of
from labsync.mirrors.s3_errors import RightMissingError
from labsync.mirrors.s3_policy import LIST_ACTION
from labsync.mirrors.s3_rights import RIGHTS
from labsync.steps.outcome import Check

if TYPE_CHECKING:
    from collections.abc import Callable

    from labsync.mirrors.s3 import S3Mirror
    from labsync.steps.lab import Lab

    Look = Callable[[Lab], Check | None]

WORTH_TELLING = 60.0  # seconds; S3 refuses what is 15 minutes off
# Uploads in parts begin with the right to put; and without that to list, an absent key looks forbidden.
_RIGHTS = (
    ("s3:PutObject", "mirror"),
    ("s3:GetObject", "s3:PutObject"),
    ("s3:AbortMultipartUpload", "s3:PutObject"),
    ("s3:ListMultipartUploadParts", "s3:PutObject"),
)
_POLICY = "`labsync iam-policy` prints the policy that allows it"


def bucket_looks() -> tuple[tuple[str, Look, str], ...]:
    """Return each look with its name, and the name of what it stands on."""
    rights = tuple((action, _right(action), stands_on) for action, stands_on in _RIGHTS)
    return (("region", _region, "mirror"), ("clock", _clock, "mirror"), *rights)


def credentials(lab: Lab) -> Check | None:
    """Say who signs; NotAllowedError (7) where nobody can."""
    if not lab.has_mirror:
        return None
    spec = lab.manifest.mirror
    source, last = signer_of(spec, spec.url)
    return Check("credentials", "ok", f"from {source}, access key …{last}")


def listing_refused(error: RightMissingError) -> RightMissingError:
    """Return the error of a listing that the policy does not allow."""
    return RightMissingError(f"{error.what}: the right `{LIST_ACTION}` is missing", hint=_POLICY)


def _mirror(lab: Lab) -> S3Mirror:
    from labsync.mirrors.s3 import S3Mirror

    mirror = lab.mirror
    assert isinstance(mirror, S3Mirror)
    return mirror


def _region(lab: Lab) -> Check | None:
    if not lab.has_mirror:
        return None
    spec, found = lab.manifest.mirror, _mirror(lab).bucket.region
    configured = Settings.read(spec, Files.read()).region
    if configured == found:
        return Check("region", "ok", spec.endpoint or found)
    return Check(
        "region",
        "warning",
        f"the bucket is in {found}, and {configured} is asked first",
        f"write `mirror: {{url: {spec.url}, region: {found}}}`",
    )


def _clock(lab: Lab) -> Check | None:
    if not lab.has_mirror:
        return None
    offset = _mirror(lab).bucket.clock_offset()
    if offset is None:
        return Check("clock", "ok", "the server does not tell its time")
    detail = f"{offset:+.0f} s from this machine to the server"
    if abs(offset) < WORTH_TELLING:
        return Check("clock", "ok", detail)
    return Check("clock", "warning", detail, "set the clock: S3 refuses what is 15 minutes off")


def _right(action: str) -> Look:
    def look(lab: Lab) -> Check | None:
        if not lab.has_mirror or lab.options.dry_run:  # all but one of them write
            return None
        try:
            RIGHTS[action](_mirror(lab).bucket)
        except RightMissingError as error:
            raise RightMissingError(f"the right `{action}` is missing", hint=_POLICY) from error
        return Check(action, "ok", "allowed")

    return look
