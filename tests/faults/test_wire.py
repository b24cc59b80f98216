"""Real clients and real servers with a spoilt wire between them: cut at any byte, flipped, rewritten."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest

from tests.fakes.box import Box
from tests.fakes.http_faults import FileServer
from tests.fakes.live import digest, parts
from tests.fakes.strict_s3 import StrictServer, strict_server
from tests.fakes.wire import Damage, Spoil, Wire
from tests.faults.depth import count

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = (5 << 20) + 123  # with a journal
DATA = random.Random(40).randbytes(SIZE)
HEAD = 200  # bytes of an answer before its body, about
SMALL = {f"outputs/{n}.json": b"%d" % n * 50 for n in range(8)}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labsync.transfer.retry.FIRST_WAIT", 0.01)
    monkeypatch.setattr("labsync.mirrors.s3_client.PAUSE", 0.0)


@pytest.fixture
def origin() -> Iterator[FileServer]:
    with FileServer({"/model.bin": DATA}) as server:
        yield server


@pytest.fixture
def server() -> Iterator[StrictServer]:
    with strict_server() as server:
        server.make_bucket("lab")
        yield server


def http_box(root: Path, origin: FileServer, wire: Wire) -> Box:
    """Return a box whose lock was made without the wire."""
    manifest = (
        "version: 1\nproject: wire\nmirror: ../mirror\ncheckpoints:\n"
        f"  m: {{origin: '{wire.url}/model.bin', sha256: {digest(DATA)}, path: m.bin}}\n"
    )
    box = Box(root, manifest)
    assert box.labsync("lock").code == 0
    return box


def s3_box(root: Path, url: str) -> Box:
    manifest = (
        f"version: 1\nproject: wire\nmirror: {{url: s3://lab/p, endpoint: '{url}', region: us-east-1}}\n"
        "checkpoints: {tuned: {path: tuned}}\nresults: {runs: {path: outputs}}\n"
    )
    return Box(root, manifest, {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret"})


EDGES = (0, 1, HEAD, HEAD + (1 << 20), HEAD + (1 << 20) + 1, SIZE // 2, SIZE, SIZE + HEAD - 1)
ANYWHERE = [random.Random(n).randrange(SIZE) for n in range(count(2, 60))]


@pytest.mark.fault(40, 41)
@pytest.mark.parametrize("damage", ["reset", "close"])
@pytest.mark.parametrize("after", [*EDGES, *ANYWHERE])
def test_a_download_that_is_cut_at_any_byte_goes_on_there(
    tmp_path: Path, origin: FileServer, after: int, damage: Damage
) -> None:
    with Wire(origin.url) as wire:
        box = http_box(tmp_path / "box", origin, wire)
        before = wire.counts["down"]
        wire.spoils = [Spoil("down", damage, after)]
        pulled = box.labsync("pull", "m", "-j", "1")
        assert pulled.code == 0, pulled.messages
        assert box.read("m.bin") == DATA
        # A reset also throws away what lies in the buffers of the system.
        assert wire.counts["down"] - before <= SIZE + (4 << 20)
        assert parts(box) == []


@pytest.mark.fault(40)
@pytest.mark.parametrize("after", [0, 1, 150, 400, 1 << 20, 9 << 20])
def test_an_upload_that_is_cut_at_any_byte_is_sent_again(
    tmp_path: Path, server: StrictServer, after: int
) -> None:
    with Wire(server.url) as wire:
        box = s3_box(tmp_path / "box", wire.url)
        box.write("tuned/step/model.bin", DATA * 4)
        box.write("tuned/step/trainer_state.json", b"{}")
        wire.spoils = [Spoil("up", "reset", after)]
        pushed = box.labsync("push", "tuned")
        assert pushed.code == 0, pushed.messages
        other = s3_box(tmp_path / "other", server.url)
        assert other.labsync("pull", "tuned").code == 0
        assert other.tree("tuned") == box.tree("tuned")


@pytest.mark.fault(42)
@pytest.mark.parametrize("after", [HEAD + 50, SIZE // 2, SIZE - 50])
def test_a_flipped_byte_of_a_download_is_found_and_fetched_again(
    tmp_path: Path, origin: FileServer, after: int
) -> None:
    with Wire(origin.url) as wire:
        box = http_box(tmp_path / "box", origin, wire)
        wire.spoils = [Spoil("down", "flip", after)]
        pulled = box.labsync("pull", "m", "-j", "1")
        assert pulled.code == 0, pulled.messages
        assert box.read("m.bin") == DATA
        wire.spoils = [Spoil("down", "flip", after, times=9)]
        (box.root / "m.bin").unlink()
        again = box.labsync("pull", "m", "-j", "1", "--force")  # from the mirror, past the wire
        assert again.code == 0
        assert again.transferred["from_origin"] == 0


@pytest.mark.fault(42)
def test_a_byte_that_is_flipped_every_time_is_an_error_and_nothing_is_visible(
    tmp_path: Path, origin: FileServer
) -> None:
    with Wire(origin.url) as wire:
        box = http_box(tmp_path / "box", origin, wire)
        wire.rewrite = lambda data: data.replace(DATA[1000:1016], DATA[1000:1015] + b"!")
        pulled = box.labsync("pull", "m", "-j", "1")
        assert pulled.code == 5, pulled.messages
        assert not (box.root / "m.bin").exists()
        assert parts(box) == []


@pytest.mark.fault(43)
@pytest.mark.parametrize("after", [900, 1100, 2000])
def test_a_flipped_byte_of_an_upload_is_noticed_by_the_server(
    tmp_path: Path, server: StrictServer, after: int
) -> None:
    with Wire(server.url) as wire:
        box = s3_box(tmp_path / "box", wire.url)
        for path, data in SMALL.items():
            box.write(path, data)
        assert box.labsync("doctor").code == 0  # the probe is behind us
        wire.spoils = [Spoil("up", "flip", after)]
        pushed = box.labsync("push", "runs", "-j", "1")
        # A flipped byte of a head, of a name or of a signature is refused as such.
        assert pushed.code in {0, 4, 5, 7, 8, 12}, pushed.messages
        assert box.labsync("push", "runs").code == 0
        other = s3_box(tmp_path / "other", server.url)
        assert other.labsync("pull", "runs").code == 0
        assert other.tree("outputs") == box.tree("outputs")


REWRITES = {
    "whole instead of a part": (rb"206 Partial Content(.*?)\r\n\r\n", rb"200 OK\r\nX-A: 1\r\n\r\n"),
    "a wrong range": (rb"(?i)content-range: bytes (\d+)-", rb"Content-Range: bytes 9\1-"),
    "compressed": (rb"\r\nETag:", rb"\r\nContent-Encoding: gzip\r\nETag:"),
}


@pytest.mark.fault(44, 45)
@pytest.mark.parametrize("how", list(REWRITES))
def test_an_answer_that_is_rewritten_on_the_way_is_not_believed(
    tmp_path: Path, origin: FileServer, how: str
) -> None:
    pattern, replacement = REWRITES[how]
    with Wire(origin.url) as wire:
        box = http_box(tmp_path / "box", origin, wire)
        wire.rewrite = lambda data: re.sub(pattern, replacement, data, flags=re.DOTALL)
        spoilt = box.labsync("pull", "m")
        assert spoilt.code in {0, 5, 8}, spoilt.messages
        assert (spoilt.code == 0) == (box.root / "m.bin").exists()
        wire.rewrite = bytes
        assert box.labsync("pull", "m").code == 0
        assert box.read("m.bin") == DATA


@pytest.mark.fault(47)
def test_a_sign_in_page_before_the_bucket_is_no_empty_mirror(tmp_path: Path, server: StrictServer) -> None:
    page = b"<html>please sign in</html>"
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)
    with Wire(server.url) as wire:
        box = s3_box(tmp_path / "box", wire.url)
        for path, data in SMALL.items():
            box.write(path, data)
        wire.rewrite = lambda data: answer if data.startswith(b"HTTP/") else b""
        for command in ("pull", "push"):
            told = box.labsync(command, "runs")
            assert told.code in {6, 8}, told.messages
            assert "empty" in str(told.errors[0]["safe"]) or "no S3" in told.messages
        wire.rewrite = bytes
        assert box.labsync("push", "runs").code == 0


@pytest.mark.fault(52)
def test_a_redirect_before_the_bucket_carries_no_credentials_away(
    tmp_path: Path, server: StrictServer
) -> None:
    with FileServer({}) as elsewhere, Wire(server.url) as wire:
        box = s3_box(tmp_path / "box", wire.url)
        box.write("outputs/a.json", b"{}")
        moved = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: %s/\r\nContent-Length: 0\r\n\r\n"
        wire.rewrite = lambda data: moved % elsewhere.url.encode() if data.startswith(b"HTTP/") else b""
        told = box.labsync("push", "runs")
        assert told.code != 0
        assert elsewhere.requests == []
