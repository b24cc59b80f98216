"""What labsync may do in a bucket, found out by doing it on scratch keys; nothing else is touched."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from labsync.errors import NotFoundError
from labsync.mirrors.base import HEADS
from labsync.mirrors.s3_policy import LIST_ACTION

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from labsync.mirrors.s3_bucket import Bucket

SCRATCH = ".labsync/probe"
SCRATCH_UPLOAD = ".labsync/probe-upload"
SCRATCH_BYTES = b"labsync writes this to learn what the server can and lets it do\n"


def _list(bucket: Bucket) -> None:
    next(bucket.listing(HEADS, 1), None)


def _get(bucket: Bucket) -> None:
    """An absent key is as good: who may not read gets a 403 for it, too."""
    with contextlib.suppress(NotFoundError):
        bucket.get(SCRATCH).close()


def _put(bucket: Bucket) -> None:
    bucket.put(SCRATCH, SCRATCH_BYTES)


def _list_parts(bucket: Bucket) -> None:
    upload = bucket.start_upload(SCRATCH_UPLOAD)
    try:
        bucket.list_parts(upload)
    finally:
        with contextlib.suppress(Exception):  # a right of its own, which is tried on its own
            bucket.abort(upload)


def _abort(bucket: Bucket) -> None:
    bucket.abort(bucket.start_upload(SCRATCH_UPLOAD))


READING: Mapping[str, Callable[[Bucket], None]] = {LIST_ACTION: _list, "s3:GetObject": _get}
WRITING: Mapping[str, Callable[[Bucket], None]] = {
    "s3:PutObject": _put,
    "s3:AbortMultipartUpload": _abort,
    "s3:ListMultipartUploadParts": _list_parts,
}
