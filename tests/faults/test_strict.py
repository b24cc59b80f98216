"""Whole commands against the strict server: what it refuses, loses, delays and says twice."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from labsync.mirrors.s3_upload import Sizes
from labsync.transfer.retry import ATTEMPTS
from tests.fakes.box import Box
from tests.fakes.strict_s3 import Fault, Limits, Manners, StrictServer, strict_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.strict_s3.faults import Listing
    from tests.fakes.strict_s3.request import Request
    from tests.fakes.strict_s3.store import Object

MIB = 1 << 20
LARGE = random.Random(71).randbytes(3 * MIB + 17)
FILES = {f"run/{number}.json": b"%d" % number * 40 for number in range(12)}
MANIFEST = """version: 1
project: strict
mirror: {mirror}
checkpoints: {{tuned: {{path: tuned}}}}
results: {{runs: {{path: outputs}}}}
"""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let retries come at once, and large files go in parts when they are a megabyte."""
    monkeypatch.setattr("labsync.transfer.retry.FIRST_WAIT", 0.01)
    monkeypatch.setattr("labsync.mirrors.s3_client.PAUSE", 0.0)
    sizes = Sizes(single=MIB, part=MIB, memory=4 * MIB)
    monkeypatch.setattr("labsync.mirrors.s3.Sizes", lambda: sizes)


@pytest.fixture
def server() -> Iterator[StrictServer]:
    with strict_server() as server:
        server.make_bucket("lab")
        yield server


def _box(root: Path, server: StrictServer, **env: str) -> Box:
    mirror = f"{{url: s3://lab/p, endpoint: '{server.url}', region: us-east-1}}"
    return Box(root, MANIFEST.format(mirror=mirror), {**server.env, **env})


def _with_files(box: Box) -> Box:
    for path, data in FILES.items():
        box.write(f"outputs/{path}", data)
    return box


def _with_checkpoint(box: Box) -> Box:
    box.write("tuned/step-1/model.bin", LARGE)
    box.write("tuned/step-1/trainer_state.json", b"{}")
    return box


def _arrives(tmp_path: Path, server: StrictServer, path: str, wanted: dict[str, bytes]) -> None:
    server.service.faults = []
    other = _box(tmp_path / "other", server)
    pulled = other.labsync("pull")
    assert pulled.code == 0, pulled.messages
    assert other.tree(path) == wanted
    assert server.uploads("lab") == []


@pytest.mark.fault(43)
@pytest.mark.parametrize("times", [1, 3])
def test_a_byte_that_is_flipped_on_the_way_up_is_sent_again(
    tmp_path: Path, server: StrictServer, times: int
) -> None:
    server.service.faults = [Fault("PUT", path="*/results/*", flip_up=True, times=times)]
    pushed = _with_files(_box(tmp_path / "box", server)).labsync("push", "runs")
    assert pushed.code == 0, pushed.messages
    _arrives(tmp_path, server, "outputs", FILES)


@pytest.mark.fault(43)
def test_bytes_that_are_always_flipped_are_an_error_and_nothing_is_visible(
    tmp_path: Path, server: StrictServer
) -> None:
    server.service.faults = [Fault("PUT", path="*/run/3.json", flip_up=True, times=-1)]
    box = _with_files(_box(tmp_path / "box", server))
    pushed = box.labsync("push", "runs")
    assert pushed.code == 5, pushed.messages
    assert not [key for key in server.keys("lab") if "/heads/" in key]
    server.service.faults = []
    assert box.labsync("push", "runs").code == 0
    _arrives(tmp_path, server, "outputs", FILES)


@pytest.mark.fault(43, 71)
def test_a_flipped_part_is_sent_again(tmp_path: Path, server: StrictServer) -> None:
    server.service.faults = [Fault("PUT", query="*partNumber=2*", flip_up=True)]
    box = _with_checkpoint(_box(tmp_path / "box", server))
    first = box.labsync("push", "tuned")
    assert first.code == 0, first.messages
    _arrives(tmp_path, server, "tuned", box.tree("tuned"))


@pytest.mark.fault(42)
def test_a_byte_that_is_flipped_on_the_way_down_is_fetched_again(
    tmp_path: Path, server: StrictServer
) -> None:
    assert _with_files(_box(tmp_path / "box", server)).labsync("push", "runs").code == 0
    server.service.faults = [Fault("GET", path="*/run/*", flip_down=True, times=2)]
    other = _box(tmp_path / "other", server)
    pulled = other.labsync("pull", "runs", "-j", "1")
    assert pulled.code == 0, pulled.messages
    assert other.tree("outputs") == FILES


@pytest.mark.fault(49, 50)
@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (503, "ServiceUnavailable")]
)
def test_a_server_that_is_busy_is_asked_later(
    tmp_path: Path, server: StrictServer, status: int, code: str
) -> None:
    times = ATTEMPTS - 1  # so often even if one file meets them all
    server.service.faults = [Fault("*", path="*/results/*", status=status, code=code, times=times)]
    pushed = _with_files(_box(tmp_path / "box", server)).labsync("push", "runs")
    assert pushed.code == 0, pushed.messages
    _arrives(tmp_path, server, "outputs", FILES)


@pytest.mark.fault(49)
def test_a_server_that_stays_busy_is_given_up_within_the_budget(tmp_path: Path, server: StrictServer) -> None:
    server.service.faults = [Fault("PUT", path="*/results/*", status=503, code="SlowDown", times=-1)]
    pushed = _with_files(_box(tmp_path / "box", server)).labsync("push", "runs")
    assert pushed.code == 8, pushed.messages
    assert len(server.service.log) < 400


@pytest.mark.fault(54)
def test_credentials_that_run_out_in_the_middle_keep_what_was_sent(
    tmp_path: Path, server: StrictServer
) -> None:
    expired = Fault("*", status=400, code="ExpiredToken", times=-1, after=6)
    server.service.faults = [expired]
    box = _with_checkpoint(_box(tmp_path / "box", server))
    stopped = box.labsync("push", "tuned", "-j", "1")
    assert stopped.code == 7, stopped.messages
    assert "expired" in stopped.messages
    assert "new credentials" in stopped.messages
    stored = sum(len(u.parts) for u in server.service.buckets["lab"].uploads.values())
    server.service.faults = []
    server.service.log.clear()
    assert box.labsync("push", "tuned").code == 0
    sent = [r for r in server.service.log if "partNumber" in r.query]
    assert len(sent) <= 4 - stored
    _arrives(tmp_path, server, "tuned", box.tree("tuned"))


@pytest.mark.fault(55)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_right_that_is_missing_is_never_absence(tmp_path: Path, server: StrictServer, method: str) -> None:
    box = _with_files(_box(tmp_path / "box", server))
    assert box.labsync("push", "runs").code == 0
    before = dict(server.service.buckets["lab"].objects)
    server.service.faults = [Fault(method, path="/lab*", status=403, code="AccessDenied", times=-1)]
    box.write("outputs/new.json", b"new")
    for command in (("push", "runs"), ("pull", "runs")) if method != "PUT" else (("push", "runs"),):
        refused = box.labsync(*command)
        assert refused.code in {7, 0} if method == "HEAD" else refused.code == 7, refused.messages
    kept = server.service.buckets["lab"].objects
    assert all(kept[key] == stored for key, stored in before.items() if "/heads/" not in key)
    assert box.read("outputs/new.json") == b"new"


@pytest.mark.fault(57)
def test_a_clock_that_is_wrong_is_told_with_how_much(tmp_path: Path, server: StrictServer) -> None:
    server.service.skew = 3600
    refused = _with_files(_box(tmp_path / "box", server)).labsync("push", "runs")
    assert refused.code == 7
    assert "clock is wrong by -3" in refused.messages


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", query="uploadId=*", late_error=True),
        Fault("POST", query="uploadId=*", lose_reply=True),
        Fault("POST", query="uploads=", lose_reply=True),
        Fault("PUT", query="*partNumber=1*", lose_reply=True),
        Fault("PUT", path="*/heads/*", lose_reply=True),
        Fault("PUT", path="*/heads/*", lose_reply=True, times=2),
        Fault("PUT", path="*/index/*", lose_reply=True),
    ],
    ids=["late error", "completion", "begin", "part", "head", "head twice", "index"],
)
def test_a_reply_that_is_lost_or_late_decides_nothing(
    tmp_path: Path, server: StrictServer, fault: Fault
) -> None:
    server.service.faults = [fault]
    box = _with_checkpoint(_box(tmp_path / "box", server))
    pushed = box.labsync("push", "tuned")
    if pushed.code != 0:
        assert pushed.code == 8, pushed.messages
        server.service.faults = []
        assert box.labsync("push", "tuned").code == 0
    assert len(box.labsync("log", "tuned").lines) == 2  # one snapshot and the report
    for upload in list(server.service.buckets["lab"].uploads.values()):
        assert not upload.parts, "parts are left"
    server.service.buckets["lab"].uploads.clear()
    _arrives(tmp_path, server, "tuned", box.tree("tuned"))


@pytest.mark.fault(67)
def test_an_upload_that_a_rule_of_the_bucket_removed_is_begun_anew(
    tmp_path: Path, server: StrictServer
) -> None:
    box = _with_checkpoint(_box(tmp_path / "box", server))
    server.service.faults = [Fault("PUT", query="*partNumber=3*", status=403, code="AccessDenied", times=-1)]
    assert box.labsync("push", "tuned").code == 7
    assert server.uploads("lab") != []
    server.service.buckets["lab"].uploads.clear()
    server.service.faults = []
    assert box.labsync("push", "tuned").code == 0
    _arrives(tmp_path, server, "tuned", box.tree("tuned"))


@pytest.mark.fault(68)
@pytest.mark.parametrize("how", ["repeat-token", "no-token", "cut", "foreign-key"])
def test_a_listing_that_is_not_right_is_never_fewer_files(
    tmp_path: Path, server: StrictServer, how: Listing
) -> None:
    box = _with_files(_box(tmp_path / "box", server))
    _with_checkpoint(box)
    assert box.labsync("push").code == 0
    box.write("tuned/step-2/trainer_state.json", b"{2}")
    server.service.faults = [Fault("GET", path="/lab", query="*list-type=2*", listing=how, times=-1)]
    foreign = "p/.labsync/heads/results/not-a-head"  # so that there is a second page
    server.service.buckets["lab"].objects[foreign] = _any(server)
    told = box.labsync("push")
    assert told.code == 8, (how, told.messages)
    server.service.faults = []
    server.service.buckets["lab"].objects.pop(foreign)
    assert box.labsync("push").code == 0
    assert box.labsync("status").code == 0


def _any(server: StrictServer) -> Object:
    return next(iter(server.service.buckets["lab"].objects.values()))


@pytest.mark.fault(68)
def test_an_error_on_the_second_page_is_an_error(tmp_path: Path, server: StrictServer) -> None:
    box = _with_files(_with_checkpoint(_box(tmp_path / "box", server)))
    assert box.labsync("push").code == 0
    for name in ("a", "b"):
        server.service.buckets["lab"].objects[f"p/.labsync/heads/results/not-{name}"] = _any(server)
    server.service.faults = [Fault("GET", query="continuation-token=*", status=500, times=-1)]
    assert box.labsync("pull").code == 8


@pytest.mark.fault(69)
@pytest.mark.parametrize("honest", [True, False])
def test_a_store_without_conditional_writes_is_refused_unless_one_box_writes(
    tmp_path: Path, *, honest: bool
) -> None:
    with strict_server(manners=Manners(conditional=False, honest=honest, metadata=False)) as server:
        server.make_bucket("lab")
        box = _with_files(_box(tmp_path / "box", server))
        refused = box.labsync("push", "runs")
        assert refused.code == 12
        assert "single_writer" in refused.messages
        assert not [key for key in server.keys("lab") if "probe" not in key]
        box.manifest.write_text(box.manifest.read_text().replace("region:", "single_writer: true, region:"))
        assert box.labsync("push", "runs").code == 0
        _arrives(tmp_path, server, "outputs", FILES)


@pytest.mark.fault(64)
def test_an_object_that_is_overwritten_is_never_put_together_from_two(
    tmp_path: Path, server: StrictServer
) -> None:
    box = _with_checkpoint(_box(tmp_path / "box", server))
    assert box.labsync("push", "tuned").code == 0
    bucket = server.service.buckets["lab"]
    key = next(key for key in bucket.objects if key.endswith("model.bin"))
    other = type(bucket.objects[key])(LARGE[::-1], "other", 0.0)
    cut = Fault("GET", path="*model.bin", cut=1 << 20)
    server.service.faults = [cut]

    def overwrite(request: Request) -> None:
        if cut.times == 0:
            bucket.put(key, other)

    server.service.on_request = overwrite
    pulled = _box(tmp_path / "other", server).labsync("pull", "tuned")
    assert pulled.code == 5, pulled.messages
    assert not (tmp_path / "other/tuned/step-1/model.bin").exists()


@pytest.mark.fault(71)
def test_the_part_size_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labsync.mirrors.s3_upload.MAX_PARTS", 3)
    sizes = Sizes(single=MIB, part=MIB // 2, memory=4 * MIB)
    monkeypatch.setattr("labsync.mirrors.s3.Sizes", lambda: sizes)
    with strict_server(Limits(most_parts=3, most_put=2 * MIB)) as server:
        server.make_bucket("lab")
        box = _with_checkpoint(_box(tmp_path / "box", server))
        pushed = box.labsync("push", "tuned")
        assert pushed.code == 0, pushed.messages
        sent = [len(r.body) for r in server.service.log if "partNumber" in r.query]
        assert sorted(sent, reverse=True) == [2 * MIB, len(LARGE) - 2 * MIB]
        _arrives(tmp_path, server, "tuned", box.tree("tuned"))


@pytest.mark.fault(68)
def test_a_page_that_is_lost_without_a_trace_overwrites_nothing(tmp_path: Path, server: StrictServer) -> None:
    box = _with_files(_box(tmp_path / "box", server))
    assert box.labsync("push", "runs").code == 0
    bucket = server.service.buckets["lab"]
    for name in ("not-a", "not-b"):
        bucket.objects[f"p/.labsync/heads/zzz/{name}"] = _any(server)
    bucket.objects["p/.labsync/heads/aaa/not-a-head"] = _any(server)
    before = dict(bucket.objects)
    server.service.faults = [Fault("GET", path="/lab", query="*heads*", listing="drop-page", times=-1)]
    other = _box(tmp_path / "other", server)
    other.write("outputs/mine.json", b"mine")
    lied_to = other.labsync("push", "runs")
    assert lied_to.code in {8, 11}, lied_to.messages
    assert all(bucket.objects[key] == stored for key, stored in before.items())
    server.service.faults = []
    assert other.labsync("push", "runs").code == 0
    assert other.labsync("pull", "runs").code == 0
    assert other.tree("outputs") == {**FILES, "mine.json": b"mine"}
