"""The S3 mirror passes the contract on a server that believes nothing, and on any server of your own.

`LABSYNC_TEST_S3=s3://bucket/prefix` runs it there too, with the endpoint, the region and the keys that
the AWS variables name; nothing below the prefix is deleted.
"""

from __future__ import annotations

import os
import re
import secrets
from typing import TYPE_CHECKING

import pytest

from labsync.manifest.model import MirrorSpec
from labsync.mirrors.s3 import S3Mirror
from labsync.mirrors.s3_upload import Sizes
from labsync.report import MirrorRequests
from tests.contracts.mirror_contract import Bench, CompareAndSwapContract, MirrorContract
from tests.contracts.test_mirrors import ResumedUploads, s3_bench
from tests.fakes.s3 import aws_env
from tests.fakes.strict_s3 import Manners, StrictServer, strict_server

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["aws_env"]  # a fixture
OWN_SERVER = os.environ.get("LABSYNC_TEST_S3", "")
OWN = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


@pytest.fixture(scope="module")
def strict() -> Iterator[StrictServer]:
    with strict_server() as server:
        server.make_bucket("lab")
        yield server


@pytest.fixture(scope="module")
def unconditional() -> Iterator[StrictServer]:
    with strict_server(manners=Manners(conditional=False, metadata=False)) as server:
        server.make_bucket("lab")
        yield server


@pytest.fixture
def prefix() -> str:
    return f"labs/{secrets.token_hex(8)}"


@pytest.mark.usefixtures("aws_env")
class TestStrictS3(CompareAndSwapContract, ResumedUploads):
    @pytest.fixture
    def bench(self, strict: StrictServer, prefix: str) -> Bench:
        return s3_bench(strict, prefix, single_writer=False)


@pytest.mark.usefixtures("aws_env")
class TestStrictS3AsAmazon(CompareAndSwapContract, ResumedUploads):
    """With the checksums that Amazon's servers verify: SHA-256, CRC-32 of parts and of the whole."""

    @pytest.fixture
    def bench(self, strict: StrictServer, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Bench:
        monkeypatch.setattr("labsync.mirrors.s3_config._AMAZON", ("127.0.0.1",))
        # Buckets are addressed by the path, for there is one host.
        monkeypatch.setattr("labsync.mirrors.s3_config._HOST_BUCKET", re.compile("(?!)"))
        return s3_bench(strict, prefix, single_writer=False)


@pytest.mark.usefixtures("aws_env")
class TestS3ThatIgnoresConditions(MirrorContract, ResumedUploads):
    PUBLISH = MirrorRequests(GET=1, PUT=2)

    @pytest.fixture
    def bench(self, unconditional: StrictServer, prefix: str) -> Bench:
        return s3_bench(unconditional, prefix, single_writer=True)


if OWN_SERVER:

    class TestOwnServer(CompareAndSwapContract):
        @pytest.fixture
        def bench(self, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Bench:
            import boto3

            for name, value in OWN.items():
                monkeypatch.setenv(name, value)
            url = f"{OWN_SERVER.rstrip('/')}/{prefix}"
            bucket, _, below = url.removeprefix("s3://").partition("/")
            sizes = Sizes(single=1 << 20, part=5 << 20, memory=20 << 20)  # real servers take no smaller part
            client = boto3.client("s3")

            def make() -> S3Mirror:
                return S3Mirror(MirrorSpec(url), conditional=True, sizes=sizes)

            def stored() -> list[str]:
                pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{below}/")
                keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
                return [key.removeprefix(f"{below}/") for key in keys if not key.endswith("/.labsync/probe")]

            def overwrite(key: str, data: bytes) -> None:
                client.put_object(Bucket=bucket, Key=f"{below}/{key}", Body=data)

            return Bench(make(), make, stored, overwrite)
