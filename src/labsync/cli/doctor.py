"""Commands that look at what labsync stands on, and say what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from labsync.cli.options import common, emit, open_lab

if TYPE_CHECKING:
    from labsync.cli.options import Common


@click.command()
@common
def doctor(common: Common) -> int:
    """Check what labsync stands on: disk, credentials, each right in the bucket, environment, kernel, GPU."""
    from labsync import workflow

    return emit(workflow.doctor(open_lab(common)), common)


@click.command("iam-policy")
@click.option("--bucket", "bucket", is_flag=True, help="Print the commands that set the bucket up instead.")
@click.option(
    "--kms-key", default="", metavar="ARN", help="The key that the bucket encrypts with, if it is yours."
)
@common
def iam_policy(common: Common, bucket: bool, kms_key: str) -> int:
    """Print the least AWS policy that labsync works with for this mirror; nothing is applied.

    It has no right to delete. `aws iam put-user-policy --policy-document` takes it as it is.
    """
    from labsync.steps.inspect import mirror_policy
    from labsync.steps.outcome import finish

    document = mirror_policy(open_lab(common), bucket=bucket, kms_key=kms_key)
    return emit(finish((), items=[document]), common)
