"""Every origin passes the contract, against real servers and real files."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from labsync.manifest.model import Artifact
from labsync.origins.git import GitOrigin
from labsync.origins.huggingface import HuggingFaceOrigin
from labsync.origins.url import UrlOrigin
from tests.contracts.origin_contract import BIG, FILES, FolderContract, Lab, NetworkContract, OriginContract
from tests.fakes.git_server import GitRepo, GitServer
from tests.fakes.http_faults import FileServer
from tests.fakes.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def model(origin: str, revision: str = "") -> Artifact:
    return Artifact("models", "m", origin=origin, revision=revision)


class TestHuggingFace(FolderContract, NetworkContract):
    @pytest.fixture
    def hub(self) -> Iterator[Hub]:
        with Hub(page_size=3) as hub:
            yield hub

    @pytest.fixture
    def lab(self, hub: Hub) -> Lab:
        hub.add_repo("models", "org/name", FILES)
        origin = HuggingFaceOrigin(hub.url)
        return Lab(origin, model("hf://org/name", "main"), FILES, model("hf://org/nothing"))

    @pytest.fixture
    def cut_off(self, hub: Hub) -> Callable[[], None]:
        return hub.close


class TestHuggingFaceDataset(FolderContract):
    @pytest.fixture
    def lab(self) -> Iterator[Lab]:
        with Hub() as hub:
            hub.add_repo("datasets", "org/data", FILES)
            origin = HuggingFaceOrigin(hub.url)
            yield Lab(origin, model("hf://datasets/org/data"), FILES, model("hf://org/data"))


class TestGitHttp(FolderContract, NetworkContract):
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[GitServer]:
        with GitServer(tmp_path / "repos") as server:
            yield server

    @pytest.fixture
    def lab(self, server: GitServer, tmp_path: Path) -> Lab:
        server.repo("lib").commit(FILES)
        origin = GitOrigin(tmp_path / "scratch")
        return Lab(origin, model(server.url_of("lib"), "main"), FILES, model(server.url_of("nothing")))

    @pytest.fixture
    def cut_off(self, server: GitServer, tmp_path: Path) -> Callable[[], None]:
        def cut() -> None:
            server.close()
            for fetched in (tmp_path / "scratch").iterdir():
                fetched.rename(tmp_path / f"gone-{fetched.name}")

        return cut


class TestGitFile(FolderContract):
    @pytest.fixture
    def lab(self, tmp_path: Path) -> Lab:
        folder = tmp_path / "my repos %20#" / "ünïcode"
        GitRepo(folder).commit(FILES)
        missing = model(f"git+file:{tmp_path}/nothing")
        return Lab(GitOrigin(tmp_path / "scratch"), model(f"git+file:{folder}"), FILES, missing)


class TestFolder(FolderContract):
    @pytest.fixture(params=["file:", "file://"])
    def lab(self, tmp_path: Path, request: pytest.FixtureRequest) -> Lab:
        for path, data in FILES.items():
            target = tmp_path / "my data" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        url = f"{request.param}{tmp_path}/my data/"
        return Lab(UrlOrigin(), model(url), FILES, model(f"file:{tmp_path}/nothing/"))


class TestMemory(FolderContract):
    @pytest.fixture
    def lab(self) -> Lab:
        root = f"memory://{uuid.uuid4().hex}/"
        fs = fsspec.filesystem("memory")
        files = {path: data for path, data in FILES.items() if "::" not in path}  # it cannot hold those
        for path, data in files.items():
            fs.pipe_file(root + path, data)
        return Lab(UrlOrigin(), model(root), files, model(f"memory://{uuid.uuid4().hex}/"))


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


class TestS3(FolderContract, NetworkContract):
    @pytest.fixture
    def lab(self, s3: str, monkeypatch: pytest.MonkeyPatch) -> Lab:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket, client = f"b{uuid.uuid4().hex}", boto3.client("s3")
        client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key="data/", Body=b"")
        client.put_object(Bucket=bucket, Key="database/other.txt", Body=b"not ours")
        for path, data in FILES.items():
            client.put_object(Bucket=bucket, Key=f"data/{path}", Body=data)
        return Lab(UrlOrigin(), model(f"s3://{bucket}/data/"), FILES, model(f"s3://{bucket}/nothing/"))

    @pytest.fixture
    def cut_off(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
        with FileServer({}) as gone:
            return lambda: monkeypatch.setenv("AWS_ENDPOINT_URL", gone.url)


class TestHttp(OriginContract, NetworkContract):
    @pytest.fixture
    def server(self) -> Iterator[FileServer]:
        with FileServer({"/dir/a b %#ü.pth": BIG}) as server:
            yield server

    @pytest.fixture
    def lab(self, server: FileServer) -> Lab:
        url = f"{server.url}/dir/{quote('a b %#ü.pth')}"
        missing = model(f"{server.url}/dir/nothing.pth")
        return Lab(UrlOrigin(), model(url), {"a b %#ü.pth": BIG}, missing)

    @pytest.fixture
    def cut_off(self, server: FileServer) -> Callable[[], None]:
        return server.close


class TestOneFile(OriginContract):
    @pytest.fixture
    def lab(self, tmp_path: Path) -> Lab:
        (tmp_path / "a b%20#?.pth").write_bytes(BIG)
        artifact = model(f"file:{tmp_path}/a b%20#?.pth")
        return Lab(
            UrlOrigin(), artifact, {"a b%20#?.pth": BIG}, replace(artifact, origin=f"file:{tmp_path}/no.pth")
        )
