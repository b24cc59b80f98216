"""What an AWS account must allow labsync, and how its bucket should be set up: pure, printed, never applied.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labsync.manifest.model import MirrorSpec

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html#mpuAndPermissions
OBJECT_ACTIONS = ("s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
LIST_ACTION = "s3:ListBucket"
KEY_ACTIONS = ("kms:GenerateDataKey", "kms:Decrypt")
UNFINISHED_DAYS = 7
OLD_VERSION_DAYS = 30
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "us-iso-": "aws-iso", "us-isob-": "aws-iso-b"}


def policy(spec: MirrorSpec, kms_key: str = "") -> str:
    """Return the least policy that all commands but `gc` work with, as JSON; `kms_key` is a key's ARN.

    It has no right to delete: who steals the keys of a notebook can then destroy nothing in a bucket
    that keeps versions.
    """
    bucket, prefix = _bucket_and_prefix(spec)
    arn = f"arn:{_partition(spec.region)}:s3:::{bucket}"
    below = f"{prefix}/" if prefix else ""
    listing: dict[str, object] = {
        "Sid": "ListWhatIsOurs", "Effect": "Allow", "Action": LIST_ACTION, "Resource": arn,
    }  # fmt: skip
    if prefix:
        listing["Condition"] = {"StringLike": {"s3:prefix": [f"{below}*"]}}
    statements: list[dict[str, object]] = [
        listing,
        {"Sid": "ReadAndAdd", "Effect": "Allow", "Action": [*OBJECT_ACTIONS], "Resource": f"{arn}/{below}*"},
        {
            "Sid": "OnlyByTls",
            "Effect": "Deny",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
    ]
    if kms_key:
        statements.append(
            {"Sid": "Encrypt", "Effect": "Allow", "Action": [*KEY_ACTIONS], "Resource": kms_key}
        )
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


def bucket_setup(spec: MirrorSpec) -> str:
    """Return the commands that set the bucket up, for whoever owns it to read and run.

    Versions of overwritten heads are kept for a month, uploads that nobody continues for a week.
    """
    bucket, prefix = _bucket_and_prefix(spec)
    rules = {
        "Rules": [
            {
                "ID": "labsync-unfinished-uploads",
                "Status": "Enabled",
                "Filter": {"Prefix": f"{prefix}/" if prefix else ""},
                "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": UNFINISHED_DAYS},
                "NoncurrentVersionExpiration": {"NoncurrentDays": OLD_VERSION_DAYS},
            }
        ]
    }
    blocked = "BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true"
    where = f"--bucket {shlex.quote(bucket)}" + (f" --region {spec.region}" if spec.region else "")
    return "\n".join(
        [
            "# Lifecycle rules replace those that the bucket has: add yours if it serves others too.",
            f"aws s3api put-public-access-block {where} --public-access-block-configuration {blocked}",
            f"aws s3api put-bucket-versioning {where} --versioning-configuration Status=Enabled",
            (
                f"aws s3api put-bucket-lifecycle-configuration {where} --lifecycle-configuration"
                f" {shlex.quote(json.dumps(rules))}"
            ),
        ]
    )


def _bucket_and_prefix(spec: MirrorSpec) -> tuple[str, str]:
    bucket, _, prefix = spec.url.removeprefix("s3://").strip("/").partition("/")
    return bucket, prefix


def _partition(region: str) -> str:
    return next((name for start, name in _PARTITIONS.items() if region.startswith(start)), "aws")
