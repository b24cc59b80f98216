"""What labsync may do in a bucket, found out by doing it on a scratch key; nothing else is touched."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from labsync.errors import LabsyncError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from labsync.mirrors.s3_bucket import Bucket

SCRATCH = ".labsync/probe-rights"
SCRATCH_BYTES = b"labsync writes this to learn what the server can and lets it do\n"


def _get(bucket: Bucket) -> None:
    bucket.get(SCRATCH).close()


def _put(bucket: Bucket) -> None:
    bucket.put(SCRATCH, SCRATCH_BYTES)


def _list_parts(bucket: Bucket) -> None:
    upload = bucket.start_upload(SCRATCH)
    try:
        bucket.list_parts(upload)
    finally:
        with contextlib.suppress(LabsyncError):  # a right of its own, which is tried on its own
            bucket.abort(upload)


def _abort(bucket: Bucket) -> None:
    bucket.abort(bucket.start_upload(SCRATCH))


RIGHTS: Mapping[str, Callable[[Bucket], None]] = {
    "s3:PutObject": _put,
    "s3:GetObject": _get,
    "s3:AbortMultipartUpload": _abort,
    "s3:ListMultipartUploadParts": _list_parts,
}
"""Each right besides that to list, and what needs it; the first makes what the second reads."""
