"""A large file that `lock` has to read goes on where a killed run was, if it is the same version still."""

from __future__ import annotations

import contextlib
import hashlib
import signal
from typing import TYPE_CHECKING

import pytest

from labsync.steps.arriving import STEP
from tests.fakes.box import Box
from tests.fakes.http_faults import Fault, FileServer
from tests.fakes.live import start, stop, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.http_faults import Reply, Request

MIB = 1 << 20
DATA = b"".join(bytes([n]) * MIB for n in range(20))
NEWER = DATA[::-1]
ARRIVED = 17 * MIB + 7  # of which two steps are durable


class Versions(FileServer):
    """Serves one file with an ETag; `weak` makes it a weak one, `deaf` ignores `If-Range`."""

    weak = deaf = False

    def answer(self, request: Request) -> Reply:
        reply = super().answer(request)
        etag = f'{"W/" if self.weak else ""}"{hashlib.md5(bytes(reply.body)).hexdigest()}"'
        changed = request.headers.get("if-range", etag) != etag and not self.deaf
        return type(reply)(reply.status, reply.body, {"ETag": etag}, ranged=reply.ranged and not changed)


@pytest.fixture
def server() -> Iterator[Versions]:
    with Versions({"/weights.bin": DATA}) as server:
        yield server


@pytest.fixture
def box(tmp_path: Path, server: Versions) -> Box:
    artifact = f"far: {{origin: '{server.url}/weights.bin', path: weights.bin}}"
    return Box(tmp_path / "box", f"version: 1\nproject: far\ncheckpoints:\n  {artifact}\n")


def _killed_in_lock(box: Box, server: Versions) -> None:
    fault = Fault("/weights.bin", method="GET", times=1, stall_after=ARRIVED)
    server.fault(fault)
    child = start(box, "lock")
    until(lambda: _arrived(box) >= ARRIVED, child)
    stop(child, signal.SIGKILL)
    server.requests.clear()


def _arrived(box: Box) -> int:
    with contextlib.suppress(FileNotFoundError):  # its name changes as it grows
        return sum(file.stat().st_size for file in _parts(box))
    return 0


def _parts(box: Box) -> list[Path]:
    return list((box.root / ".labsync/fetched").glob("*.part"))


def _ranges(server: Versions) -> list[str]:
    return [r.headers.get("range", "whole") for r in server.requests if r.method == "GET"]


def _locked(box: Box) -> str:
    assert box.labsync("lock").code == 0
    assert not _parts(box)
    (line,) = [line for line in (box.root / "labsync.lock").read_text().splitlines() if "sha256" in line]
    return line


def test_a_killed_lock_repeats_a_step_and_a_block_at_most(box: Box, server: Versions) -> None:
    _killed_in_lock(box, server)
    assert hashlib.sha256(DATA).hexdigest() in _locked(box)
    (asked,) = _ranges(server)
    assert ARRIVED - STEP - MIB <= int(asked.removeprefix("bytes=").partition("-")[0]) <= ARRIVED
    server.close()
    assert box.labsync("pull").code == 0, "what was read then is what `pull` takes"
    assert box.read("weights.bin") == DATA


@pytest.mark.parametrize("deaf", [False, True])
def test_another_version_is_read_from_its_beginning(box: Box, server: Versions, *, deaf: bool) -> None:
    _killed_in_lock(box, server)
    server.files["/weights.bin"] = NEWER
    server.deaf = deaf
    assert hashlib.sha256(NEWER).hexdigest() in _locked(box)


@pytest.mark.parametrize("deaf", [False, True])
def test_a_version_that_changes_after_the_head_is_read_from_its_beginning(
    box: Box, server: Versions, *, deaf: bool
) -> None:
    _killed_in_lock(box, server)
    server.deaf = deaf
    answer = server.answer

    def changing(request: Request) -> Reply:
        if request.method == "GET":
            server.files["/weights.bin"] = NEWER
        return answer(request)

    server.answer = changing  # type: ignore[method-assign]
    assert hashlib.sha256(NEWER).hexdigest() in _locked(box)


def test_without_a_strong_name_of_the_version_nothing_is_put_together(box: Box, server: Versions) -> None:
    server.weak = True
    _killed_in_lock(box, server)
    assert hashlib.sha256(DATA).hexdigest() in _locked(box)
    assert _ranges(server) == ["whole"]


def test_a_part_that_lost_its_end_is_not_trusted(box: Box, server: Versions) -> None:
    _killed_in_lock(box, server)
    (part,) = _parts(box)
    part.write_bytes(DATA[:STEP])
    assert hashlib.sha256(DATA).hexdigest() in _locked(box)
