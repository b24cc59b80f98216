"""Copy with boto3 or obstore: what people write who write it themselves.

`python loops.py boto3|obstore get|put|get_all|put_all URL BUCKET KEY PATH`; runs on its own, in the
environment that has these packages.
"""

from __future__ import annotations

import importlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

THREADS = 16


class Client(Protocol):
    """One of the two packages."""

    def names(self, prefix: str) -> Iterable[str]:
        """List the keys below a prefix."""

    def get(self, key: str, file: Path) -> None:
        """Bring an object to a file."""

    def put(self, file: Path, key: str) -> None:
        """Bring a file to the bucket."""


class Boto3:
    """boto3's own transfer functions, which cut large files into parts."""

    def __init__(self, url: str, bucket: str) -> None:
        boto3: Any = importlib.import_module("boto3")
        config: Any = importlib.import_module("botocore.config")
        limits = config.Config(max_pool_connections=THREADS)
        self._client = boto3.client("s3", endpoint_url=url, config=limits)
        self._bucket = bucket

    def names(self, prefix: str) -> Iterable[str]:
        """See Client."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def get(self, key: str, file: Path) -> None:
        """See Client."""
        self._client.download_file(self._bucket, key, str(file))

    def put(self, file: Path, key: str) -> None:
        """See Client."""
        self._client.upload_file(str(file), self._bucket, key)


class Obstore:
    """obstore, whose work is done by compiled code."""

    def __init__(self, url: str, bucket: str) -> None:
        self._obstore: Any = importlib.import_module("obstore")
        store: Any = importlib.import_module("obstore.store")
        self._store = store.S3Store(
            bucket,
            endpoint=url,
            client_options={"allow_http": True},
            virtual_hosted_style_request=False,
        )

    def names(self, prefix: str) -> Iterable[str]:
        """See Client."""
        return [item["path"] for page in self._obstore.list(self._store, prefix) for item in page]

    def get(self, key: str, file: Path) -> None:
        """See Client."""
        with file.open("wb") as out:
            for block in self._obstore.get(self._store, key).stream():
                out.write(block)

    def put(self, file: Path, key: str) -> None:
        """See Client."""
        self._obstore.put(self._store, key, file)


def get_all(client: Client, prefix: str, folder: Path) -> None:
    """Bring all objects below a prefix into a folder."""
    names = list(client.names(f"{prefix}/"))
    files = [folder / name.removeprefix(f"{prefix}/") for name in names]
    for parent in {file.parent for file in files}:
        parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(client.get, names, files))


def put_all(client: Client, prefix: str, folder: Path) -> None:
    """Bring all files of a folder to the bucket."""
    files = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    keys = [f"{prefix}/{file.relative_to(folder).as_posix()}" for file in files]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(client.put, files, keys))


def main(package: str, verb: str, url: str, bucket: str, key: str, path: str) -> None:
    """Do what the command line says."""
    client: Client = Boto3(url, bucket) if package == "boto3" else Obstore(url, bucket)
    where = Path(path)
    if verb == "get":
        client.get(key, where)
    elif verb == "put":
        client.put(where, key)
    elif verb == "get_all":
        get_all(client, key, where)
    else:
        put_all(client, key, where)


if __name__ == "__main__":
    main(*sys.argv[1:])
