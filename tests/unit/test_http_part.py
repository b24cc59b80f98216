"""Which answers are the part of the file that was asked for, and what others mean."""

from __future__ import annotations

import email.utils
import time

import pytest

from labsync.errors import IntegrityError, LabsyncError, UnavailableError
from labsync.origins.http_errors import Answer, retry_after, transport_error
from labsync.origins.http_part import Part, check
from labsync.places import NoRangesError
from labsync.snapshot import FileEntry

GOOD = "bytes 10-19/100"


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (206, {"content-range": GOOD}, None),
        (206, {"content-range": "bytes 10-19/*"}, None),
        (200, {"content-range": GOOD, "content-length": "10"}, None),
        (206, {"content-range": GOOD, "content-type": "text/html"}, None),
        (206, {"content-range": "bytes 11-19/100"}, UnavailableError),
        (206, {"content-range": "bytes 0-19/100"}, UnavailableError),
        (206, {"content-range": "bytes 10-18/100"}, UnavailableError),
        (206, {"content-range": "bytes 10-20/100"}, UnavailableError),
        (206, {"content-range": "bytes 10-99/100"}, UnavailableError),
        (206, {"content-range": "10-19/100"}, UnavailableError),
        (206, {"content-range": ""}, UnavailableError),
        (206, {}, UnavailableError),
        (206, {"content-type": "multipart/byteranges; boundary=x"}, UnavailableError),
        (206, {"content-range": "bytes 10-19/99"}, IntegrityError),
        (206, {"content-range": "bytes 10-19/101"}, IntegrityError),
        (206, {"content-range": GOOD, "content-encoding": "gzip"}, UnavailableError),
        (200, {"content-range": "bytes 0-99/100"}, UnavailableError),
        (200, {"content-length": "100"}, NoRangesError),
        (200, {}, NoRangesError),
        (200, {"content-length": "101"}, IntegrityError),
        (200, {"content-length": "99"}, IntegrityError),
        (200, {"content-length": "10"}, IntegrityError),
        (200, {"content-length": "50", "content-type": "text/html"}, UnavailableError),
        (416, {}, UnavailableError),
        (416, {"content-range": "bytes */100"}, UnavailableError),
        (416, {"content-range": "bytes */15"}, IntegrityError),
        (416, {"content-range": "bytes */200"}, IntegrityError),
    ],
)
def test_only_exactly_the_part_is_accepted_however_it_is_labelled(
    status: int, headers: dict[str, str], kind: type[LabsyncError] | None
) -> None:
    answer, part = Answer("https://h/f.bin", status, headers), Part(FileEntry("f.bin", "", 100), 10, 20)
    if kind is None:
        check(answer, part)
    else:
        with pytest.raises(LabsyncError) as caught:
            check(answer, part)
        assert type(caught.value) is kind


@pytest.mark.fault(63, 64)
@pytest.mark.parametrize("etag", ['"2"', 'W/"1"', ""])
def test_a_part_of_another_version_is_not_taken_also_where_if_range_is_ignored(etag: str) -> None:
    part = Part(FileEntry("f.bin", "", 100), 10, 20, '"1"')
    check(Answer("https://h/f.bin", 206, {"content-range": GOOD, "etag": '"1"'}), part)
    with pytest.raises(NoRangesError, match="another version"):
        check(Answer("https://h/f.bin", 206, {"content-range": GOOD, "etag": etag}), part)


@pytest.mark.parametrize(
    ("headers", "is_good"),
    [({}, True), ({"content-range": "bytes 0-99/100"}, True), ({"content-range": "bytes 0-9/100"}, False)],
)
def test_a_whole_file_is_the_whole_file(headers: dict[str, str], is_good: bool) -> None:
    part = Part.of(FileEntry("f.bin", "", 100), 0, None)
    if is_good:
        check(Answer("https://h/f.bin", 200, headers), part)
    else:
        with pytest.raises(UnavailableError, match="another range"):
            check(Answer("https://h/f.bin", 206, headers), part)


def test_a_date_to_wait_for_is_counted_from_now() -> None:
    assert 50 < retry_after({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)}) <= 60
    assert retry_after({"retry-after": email.utils.formatdate(time.time() - 60, usegmt=True)}) == 0
    assert retry_after({"retry-after": "soon"}) == 0


@pytest.mark.fault(48)
def test_a_certificate_out_of_its_time_points_to_the_clock() -> None:
    import urllib3

    error = urllib3.exceptions.SSLError("certificate verify failed: certificate is not yet valid")
    assert "clock" in transport_error("https://here/f", error).hint
